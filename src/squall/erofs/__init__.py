"""EROFS images: one read-only file that the kernel mounts as a tree.

`tree.py` reads a directory into nodes, `placement.py` says where each of them goes, `writer.py` writes the file;
`reader.py` reads one without the kernel, `unpack.py` makes a directory of it again where the kernel mounts none.
`layout.py` is the format, as Linux documents it in Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h: we
write uncompressed images of 4 KiB blocks that every kernel since 5.16 reads.

One tree gives the same bytes on every machine: nothing in the file says when or where it was made, and names are in
the order of their bytes. Modification times are kept to the nanosecond, because Python compares them with those that
its bytecode was compiled for. mkfs.erofs can do one or the other, differs between versions, and is slower; see
docs/decisions/0030.
"""
