from degradations.device.jpeg import jpeg

__all__ = ["jpeg"]
