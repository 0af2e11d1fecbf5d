# Debian packages, downloaded and unpacked beside the system's own. To be sourced.

# Prints the beginning of a line of sources.list: up to the suite.
debian_source() {
    # The mirror that the system uses; that of security updates has no backports.
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
            grep -v security | head -1)"
}

# Sets `apt` to an apt-get with a state of its own in a folder: the system's is neither read for
# sources nor changed. Given "whole", it thinks that nothing is installed: what it downloads is
# complete, down to the C library.
private_apt() {
    state=$PWD/$1/apt
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    printf "$(debian_source) %s main\n" bookworm bookworm-backports >"$state/sources.list"
    apt=(apt-get -qq -o Dir::Etc::SourceList="$state/sources.list"
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$state/lists"
        -o Dir::Cache="$state" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
    if [ "${2:-}" = whole ]; then
        : >"$state/status"
        apt+=(-o Dir::State::status="$state/status")
    fi
    "${apt[@]}" update
}

# Downloads packages with that apt, and unpacks them below `root` in its folder.
unpack_debs() {
    local folder=$1 deb
    shift
    "${apt[@]}" install --download-only --allow-downgrades -y --no-install-recommends \
        "$@" >/dev/null
    for deb in "$state"/archives/*.deb; do dpkg-deb -x "$deb" "$folder/root"; done
    rm -rf "$state"
}
