"""Everything that a rescue report is made of (R11, R14)."""

from dataclasses import dataclass
from uuid import UUID

from gateway.domain.privacy import Privacy
from gateway.domain.procedure import Procedure
from gateway.service.case_reading import CaseFile, case_file
from gateway.service.disclosures import disclose
from gateway.service.proof import CaseProof, evidence_in, proof_of
from gateway.site.procedure_file import procedure_from
from gateway.store import disclosures, procedures, report
from gateway.store.directory import Directory
from gateway.store.disclosures import Disclosure, DisclosureRow
from gateway.store.pool import Pool
from gateway.store.procedures import FactRow
from gateway.store.report import StepLine

__all__ = ["LEVEL", "ReportFile", "read_report"]

LEVEL = Privacy.CARE
"""A report names the person and says where they live and what was done. What ails them is not in it (R22)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A case with what was known, done and owed, who saw it, and how its journal stands. ``procedures`` by name."""

    file: CaseFile
    first_owner: str | None
    facts: list[FactRow]
    steps: list[StepLine]
    procedures: dict[tuple[str, int], Procedure]
    disclosures: list[DisclosureRow]
    proof: CaseProof
    flaws: tuple[str, ...]


async def read_report(pool: Pool, directory: Directory, case_id: UUID, *, by: str) -> ReportFile:
    """Return what a report says, as of one instant, and have it on record that `by` exported one (R22).

    Raises:
        NotFound: No such case.
    """
    keyring = directory.keyring
    async with pool.connection() as conn, conn.transaction():
        file = await case_file(conn, directory, case_id)
        steps = await report.steps_of(conn, case_id)
        evidence = await evidence_in(conn, keyring, case_id)
        found = ReportFile(
            file=file,
            first_owner=await report.first_owner(conn, case_id),
            facts=await procedures.facts_of(conn, case_id),
            steps=steps,
            procedures={
                (name, version): procedure_from(await procedures.body(conn, name, version))
                for name, version in sorted({(step.procedure, step.version) for step in steps})
            },
            disclosures=await disclosures.of_case(conn, case_id),
            proof=await proof_of(conn, keyring, case_id, file.case, file.chain, evidence.heads),
            flaws=tuple(evidence.flaws),
        )
    await disclose(pool, directory, Disclosure(case_id=case_id, who=by, what="report", level=LEVEL))
    return found
