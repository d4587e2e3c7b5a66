"""Bootlink's boot files: loaders, and each client's iPXE script."""

from bootlink_tftp.service import SERVICE
from bootlink_tftp.settings import TftpSettings

__all__ = ["SERVICE", "TftpSettings"]
