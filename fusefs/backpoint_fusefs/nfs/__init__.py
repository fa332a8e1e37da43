"""The mount for machines that cannot mount it themselves: NFS-Ganesha, supervised."""
