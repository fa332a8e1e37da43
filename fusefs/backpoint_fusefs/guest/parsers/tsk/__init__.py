"""Windows' and removable media's filesystems: NTFS, FAT, exFAT, ISO 9660, and HFS+ by pytsk3."""
