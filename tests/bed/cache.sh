# Things that are built once below .peers/bed and built again when what they are made of changes. To be
# sourced in the root of the repository.

bed=.peers/bed

# Prints a digest of files, and of the versions of the programs that turn them into something.
digest_of() {
    {
        cat "$@"
        dpkg-query -W -f '${Package} ${Version}\n' qemu-system-x86 mmdebstrap e2fsprogs 2>/dev/null || true
    } | sha256sum | cut -c -16
}

# Builds a folder below $bed: `build_once NAME FUNCTION FILE…` calls FUNCTION with an empty folder, unless
# one is there that was made of these same files. Several callers wait for each other.
build_once() {
    local name=$1 function=$2 digest begun=$SECONDS
    shift 2
    digest=$(digest_of "$@")
    mkdir -p $bed
    exec 9>"$bed/$name.lock"
    flock 9
    if [ "$(cat "$bed/$name/made-of" 2>/dev/null)" != "$digest" ]; then
        echo "building $bed/$name"
        rm -rf "${bed:?}/$name" "$bed/$name.new"
        mkdir "$bed/$name.new"
        $function "$bed/$name.new"
        echo "$digest" >"$bed/$name.new/made-of"
        mv "$bed/$name.new" "$bed/$name"
        echo "built $bed/$name in $((SECONDS - begun)) s"
    fi
    exec 9>&-
}
