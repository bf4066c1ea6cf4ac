"""What is on disk, and nothing about processes.

    paths.py         where everything is
    distrusted.py    files that others wrote: how they are opened and read

Containers:

    containers.py    the directories of one: made, described, taken away; state.py  what it is at this moment
    bundles.py       the state directory of pyrun-oci; record.py  the types of what is noted

Images:

    references.py    what `ubuntu` and `name@sha256:...` mean; platforms.py  linux/arm64/v8
    images.py        found; image_writer.py  made; image_removal.py  taken out; image_json.py  their records' types
    recipes.py       images/NAME.yaml, which says: embedded.py  busybox, bootstrap.py  Debian's packages, or a registry

Layers, in the order of unpacking:

    layers.py        their directories
    archives.py      an image archive's files by name; inflate.py  compressed or not; tarstream.py  headers,
                     of tarfields.py  numbers and times, and sparse.py  maps of files with holes
    unpack.py        entries below one directory, by rooted.py  paths that cannot leave it, and nodes.py  one file
    overlay_kind.py  the kernel's overlay or fuse-overlayfs; overlay_view.py  unpacking through it
"""
