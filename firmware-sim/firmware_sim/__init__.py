"""Virtual terminals, responders and benches: the witness that can prove the gateway wrong.

It shares the published contracts with the gateway and none of its code, and knows it only as a process
that speaks MQTT, HTTP and its command line.
"""
