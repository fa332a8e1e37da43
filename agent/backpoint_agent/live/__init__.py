"""VMs that run from the backup in a vCenter: begun from a session, moved to production, or ended.

`vmx_plan` says what the VM will be (pure), `booting` does it step by step with the ledger,
`judgement` decides what may be undone (pure), `ending` undoes it, `migrating` moves the VM away.
"""
