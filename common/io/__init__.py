"""The impure edge of `common`: files, sockets and the internals of Flower."""
