"""The rescue report (救援报告): what it says, in the language of the site, and what it looks like on paper."""
