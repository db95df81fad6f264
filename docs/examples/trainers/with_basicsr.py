"""BasicSR trains on our pairs: python with_basicsr.py -opt with_basicsr.yml

The same two lines serve in the train.py of Real-ESRGAN and of all that is built on BasicSR.
"""

from pathlib import Path

from basicsr.train import train_pipeline

from degradations import basicsr

if __name__ == "__main__":
    basicsr.register()
    train_pipeline(str(Path.cwd()))
