"""Hydra merges the files of conf/ once for each choice of options; values are put on top of them as ever.

The merge takes a quarter of a second, and most tests of settings compose more than once. Other folders on Hydra's
search path, which tests write, are read each time.
"""

import copy

from hydra._internal import config_loader_impl as hydras
from hydra._internal.defaults_list import Overrides
from hydra.core.config_store import ConfigStore

from p2p.shipped import CONF


def names(node):
    """What Hydra's store of schemas has, which a plugin or a test may add to."""
    return tuple((name, names(inner) if isinstance(inner, dict) else None) for name, inner in node.items())


def compose_once(patch):
    """Patch Hydra by `patch`, a `pytest.MonkeyPatch`, for as long as that holds."""
    list_defaults, merge = hydras.create_defaults_list, hydras.ConfigLoaderImpl._compose_config_from_defaults_list
    lists, merged = {}, {}

    def create_defaults_list(repo, config_name, overrides_list, **options):
        if {source.path for source in repo.get_sources() if source.scheme() == "file"} != {str(CONF)}:
            return list_defaults(repo, config_name, overrides_list, **options)
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        choices = tuple(each.input_line for each in overrides_list if each not in values)
        key = (config_name, choices, tuple(options.items()), names(ConfigStore.instance().repo))
        if key not in lists:
            lists[key] = list_defaults(repo, config_name, overrides_list, **options)
            merged[id(lists[key].defaults)] = None
        found = copy.copy(lists[key])
        found.config_overrides = values
        return found

    def compose_config_from_defaults_list(loader, defaults, repo):
        if id(defaults) not in merged:
            return merge(loader, defaults=defaults, repo=repo)
        if merged[id(defaults)] is None:
            merged[id(defaults)] = merge(loader, defaults=defaults, repo=repo)
        return copy.deepcopy(merged[id(defaults)])

    patch.setattr(hydras, "create_defaults_list", create_defaults_list)
    patch.setattr(hydras.ConfigLoaderImpl, "_compose_config_from_defaults_list", compose_config_from_defaults_list)
