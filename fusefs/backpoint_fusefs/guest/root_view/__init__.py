"""The guest's own view of its storage, as a plan: which volume it has at which of its paths. Pure:
what is in the volumes is asked for through `guest_files.GuestFiles`."""
