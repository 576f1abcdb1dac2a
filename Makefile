.SHELLFLAGS := -eu -c
.PHONY: libtorch
# `.libtorch` is where .cargo/config.toml looks: the user's LIBTORCH, or the folder fetched once into the cache.
libtorch:
	@folder="$${LIBTORCH:-$$(python3 runtime/train/libtorch/fetch.py)}"; \
	  test -d "$$folder/lib" || { echo "error: LIBTORCH=$$folder has no lib/" >&2; exit 1; }; \
	  ln -sfn "$$folder" .libtorch
