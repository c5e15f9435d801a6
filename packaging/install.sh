#!/bin/sh
# Makes a tarball of Posthouse, installs it without network, upgrades it and takes it away again.
# 制作 Posthouse 安装包；离线安装、升级与卸载。
#
#   packaging/install.sh build [--out DIR] [--native | --program FILE] [--profile dist|release]   in the source tree 在源码目录中
#   ./install.sh install [--user] [--prefix DIR]          in the unpacked tarball 在解压后的目录中
#   packaging/install.sh install TARBALL [--user] …       from a tarball 直接安装 tar 包
#   ./install.sh uninstall [--user] [--prefix DIR] [--purge]
#
# Configuration, keys and data are never overwritten; `uninstall` leaves them unless --purge is given.
# DESTDIR stages the files of an installation elsewhere and touches nothing else.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
target=x86_64-unknown-linux-gnu
glibc=2.17
zig_version=0.15.2
zigbuild_version=0.24.0

main() {
    verb=${1:-help}
    [ $# -eq 0 ] || shift
    case $verb in
        build) build "$@" ;;
        install) install_from "$@" ;;
        uninstall) uninstall "$@" ;;
        help | --help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0" ;;
        *) fail "unknown verb: $verb 未知的动作" ;;
    esac
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

# ---- build -------------------------------------------------------------------------------------

build() {
    out= native= program= profile=dist
    while [ $# -gt 0 ]; do
        case $1 in
            --out) [ $# -gt 1 ] || fail "--out needs a folder"; out=$2; shift 2 ;;
            --native) native=yes; shift ;;
            --program) [ $# -gt 1 ] || fail "--program needs a file"; program=$2; shift 2 ;;
            --profile) [ $# -gt 1 ] || fail "--profile needs dist or release"; profile=$2; shift 2 ;;
            *) fail "unknown option: $1 未知的选项" ;;
        esac
    done
    case $profile in dist | release) ;; *) fail "--profile is dist or release" ;; esac
    root=$(cd "$here/.." && pwd)
    [ -f "$root/Cargo.toml" ] || fail "build runs in the source tree 请在源码目录中运行 build"
    out=${out:-$root/target/dist}
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    [ -n "$version" ] || fail "Cargo.toml names no version"
    built=${CARGO_TARGET_DIR:-$root/target}
    if [ -n "$program" ]; then
        # Built already, for whatever machine it was built for.
        [ -x "$program" ] || fail "$program is no program"
    elif [ -n "$native" ]; then
        # For this machine and newer ones; its glibc decides which.
        (cd "$root" && cargo build --locked --profile $profile --bin posthouse)
        program=$built/$profile/posthouse
    else
        zig_tools "$built/packaging-tools"
        # The linker takes its symbols from glibc 2.17's headers, whatever this machine has.
        (cd "$root" && cargo zigbuild --locked --profile $profile --bin posthouse --target "$target.$glibc")
        program=$built/$target/$profile/posthouse
        "$here/check-glibc" "$program" "$glibc"
    fi
    name=posthouse-$version-linux-x86_64
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    tree=$stage/$name
    mkdir -p "$tree/bin" "$tree/doc" "$tree/man" "$tree/completions" "$tree/config"
    cp "$program" "$tree/bin/posthouse"
    cp "$here/install.sh" "$here/check-glibc" "$tree/"
    cp -r "$here/systemd" "$here/sysusers.d" "$here/tmpfiles.d" "$here/sysctl.d" "$here/modules-load.d" "$tree/"
    cp "$here/README.md" "$here/README.zh-CN.md" "$tree/"
    for file in "$root"/config/*.toml; do [ ! -f "$file" ] || cp "$file" "$tree/config/"; done
    for file in README.md README.zh-CN.md CHANGELOG.md LICENSE; do
        [ ! -f "$root/$file" ] || cp "$root/$file" "$tree/doc/"
    done
    generated "$program" "$tree"
    find "$tree" -type d -exec chmod 755 {} +
    find "$tree" -type f -exec chmod 644 {} +
    chmod 755 "$tree/install.sh" "$tree/check-glibc" "$tree/bin/posthouse"
    (cd "$tree" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum >SHA256SUMS)
    # The same sources give the same tarball.
    when=${SOURCE_DATE_EPOCH:-$(cd "$root" && git log -1 --format=%ct 2>/dev/null || echo 0)}
    (cd "$stage" && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$when" -cf - "$name" | gzip -n -9 >"$out/$name.tar.gz")
    (cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
    say "$out/$name.tar.gz"
}

# Man pages and completions come from the program itself.
generated() {
    "$1" generate man --out "$2/man" >/dev/null || fail "the program printed no man pages"
    "$1" generate completions --out "$2/completions" >/dev/null || fail "the program printed no completions"
}

zig_tools() {
    if command -v cargo-zigbuild >/dev/null && { command -v zig >/dev/null || python3 -c 'import ziglang' 2>/dev/null; }; then
        return
    fi
    if [ ! -x "$1/bin/cargo-zigbuild" ]; then
        say "fetching zig and cargo-zigbuild from PyPI 正在从 PyPI 获取 zig 与 cargo-zigbuild" >&2
        python3 -m venv "$1" || fail "python3 with venv is needed (Debian: apt-get install python3-venv)"
        "$1/bin/pip" install --quiet "ziglang==$zig_version" "cargo-zigbuild==$zigbuild_version" \
            || fail "PyPI cannot be reached; --native builds for this machine's glibc 无法访问 PyPI，可用 --native"
    fi
    PATH=$1/bin:$PATH
    CARGO_ZIGBUILD_PYTHON_PATH=$1/bin/python3
    export PATH CARGO_ZIGBUILD_PYTHON_PATH
}

# ---- install -----------------------------------------------------------------------------------

options() {
    user= prefix= purge= tarball=
    while [ $# -gt 0 ]; do
        case $1 in
            --user) user=yes; shift ;;
            --prefix) [ $# -gt 1 ] || fail "--prefix needs a folder"; prefix=$2; shift 2 ;;
            --purge) purge=yes; shift ;;
            -*) fail "unknown option: $1 未知的选项" ;;
            *) [ -z "$tarball" ] || fail "one tarball at a time"; tarball=$1; shift ;;
        esac
    done
    destdir=${DESTDIR:-}
    if [ -n "$user" ]; then
        [ -n "${HOME:-}" ] || fail "HOME is not set"
        prefix=${prefix:-$HOME/.local}
        etc=${XDG_CONFIG_HOME:-$HOME/.config}/posthouse
        units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    else
        [ -n "$destdir" ] || [ "$(id -u)" -eq 0 ] || fail "run as root, or with --user 请用 root 运行，或加 --user"
        prefix=${prefix:-/usr/local}
        etc=/etc/posthouse
        # /usr/local is on systemd's path from its beginning; another prefix is not.
        units=/usr/local/lib/systemd/system
        [ "$prefix" = /usr/local ] || units=/etc/systemd/system
    fi
    case $prefix in /*) ;; *) fail "--prefix is an absolute path" ;; esac
    case $prefix in *[!A-Za-z0-9/._-]*) fail "--prefix may hold letters, digits and / . _ -" ;; esac
}

install_from() {
    options "$@"
    if [ -n "$tarball" ]; then
        [ -f "$tarball" ] || fail "$tarball is missing"
        unpacked=$(mktemp -d)
        trap 'rm -rf "$unpacked"' EXIT
        tar -xzf "$tarball" -C "$unpacked"
        for tree in "$unpacked"/*; do break; done
    else
        tree=$here
    fi
    [ -x "$tree/bin/posthouse" ] || fail "no program here: give a tarball, or unpack one 此处没有程序，请指定 tar 包"
    (cd "$tree" && sha256sum --quiet -c SHA256SUMS) || fail "the tarball is damaged 安装包已损坏"
    bin=$prefix/bin
    share=$prefix/share/posthouse
    # In one step under its name: a running node keeps the old file, the next start takes the new one.
    put 755 "$tree/bin/posthouse" "$bin/posthouse"
    put 755 "$tree/install.sh" "$share/install.sh"
    for file in "$tree"/config/*.toml; do [ ! -f "$file" ] || put 644 "$file" "$share/config/${file##*/}"; done
    for file in "$tree"/doc/*; do [ ! -f "$file" ] || put 644 "$file" "$share/doc/${file##*/}"; done
    # They hold for the whole machine: whoever wants them puts them in force.
    for file in "$tree"/sysctl.d/*.conf "$tree"/modules-load.d/*.conf; do
        [ ! -f "$file" ] || put 644 "$file" "$share/${file#"$tree"/}"
    done
    for file in "$tree"/man/*; do [ ! -f "$file" ] || put 644 "$file" "$prefix/share/man/man1/${file##*/}"; done
    put 644 "$tree/completions/posthouse.bash" "$prefix/share/bash-completion/completions/posthouse"
    put 644 "$tree/completions/_posthouse" "$prefix/share/zsh/site-functions/_posthouse"
    put 644 "$tree/completions/posthouse.fish" "$prefix/share/fish/vendor_completions.d/posthouse.fish"
    if [ -n "$user" ]; then install_user; else install_root; fi
    # An upgrade keeps what is there; what is new in the example is in $share/config.
    if [ -f "$tree/config/node.toml" ] && [ ! -e "$destdir$etc/node.toml" ]; then
        put 644 "$tree/config/node.toml" "$etc/node.toml"
        [ -z "$user" ] || sed -i "s|/var/lib/posthouse|${XDG_DATA_HOME:-$HOME/.local/share}/posthouse|g" "$destdir$etc/node.toml"
    fi
    say "installed $("$destdir$bin/posthouse" --version) in $prefix 已安装"
    say "configuration 配置: $etc/node.toml"
    [ -z "$user" ] || case :$PATH: in *:"$bin":*) ;; *) say "add $bin to PATH 请将其加入 PATH" ;; esac
}

install_root() {
    put 644 "$tree/sysusers.d/posthouse.conf" "$prefix/lib/sysusers.d/posthouse.conf"
    put 644 "$tree/tmpfiles.d/posthouse.conf" "$prefix/lib/tmpfiles.d/posthouse.conf"
    for role in node coordinator; do
        unit=posthouse-$role.service
        put 644 "$tree/systemd/system/$unit" "$units/$unit"
        sed -i "s|/usr/local/bin/|$bin/|g" "$destdir$units/$unit"
        # Left from an earlier installation under another systemd.
        for file in "$destdir$units/$unit.d"/[0-9][0-9][0-9].conf; do [ ! -f "$file" ] || rm "$file"; done
        for file in "$tree/systemd/system/$unit.d"/*.conf; do
            needs=${file##*/}
            needs=${needs%.conf}
            [ "$(systemd_version)" -lt "$needs" ] || put 644 "$file" "$units/$unit.d/$needs.conf"
        done
    done
    [ -z "$destdir" ] || return 0
    if ! getent passwd posthouse >/dev/null; then
        if command -v systemd-sysusers >/dev/null; then
            systemd-sysusers "$prefix/lib/sysusers.d/posthouse.conf"
        else
            useradd --system --user-group --home-dir /var/lib/posthouse --no-create-home --shell /usr/sbin/nologin posthouse
        fi
    fi
    mkdir -p /etc/posthouse
    for folder in /var/lib/posthouse /var/lib/posthouse-coordinator; do
        [ -d "$folder" ] || install -d -m 700 -o posthouse -g posthouse "$folder"
    done
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        for role in node coordinator; do
            # Drains and comes back with the new program.
            systemctl try-restart "posthouse-$role.service"
        done
    fi
}

install_user() {
    mkdir -p "$destdir$etc"
    for role in node coordinator; do
        unit=posthouse-$role.service
        put 644 "$tree/systemd/user/$unit" "$units/$unit"
        sed -i "s|%h/.local/bin/|$bin/|; s|%h/.config/posthouse/|$etc/|" "$destdir$units/$unit"
    done
    [ -z "$destdir" ] || return 0
    if [ -n "${XDG_RUNTIME_DIR:-}" ] && [ -d "$XDG_RUNTIME_DIR/systemd" ]; then
        systemctl --user daemon-reload
        for role in node coordinator; do systemctl --user try-restart "posthouse-$role.service"; done
    fi
}

uninstall() {
    options "$@"
    bin=$prefix/bin
    if [ -z "$destdir" ] && [ -z "$user" ] && [ -d /run/systemd/system ]; then
        systemctl disable --now posthouse-node.service posthouse-coordinator.service 2>/dev/null || true
    elif [ -z "$destdir" ] && [ -n "$user" ] && [ -d "${XDG_RUNTIME_DIR:-/nonexistent}/systemd" ]; then
        systemctl --user disable --now posthouse-node.service posthouse-coordinator.service 2>/dev/null || true
    fi
    rm -f "$destdir$bin/posthouse" "$destdir$prefix"/share/man/man1/posthouse*.1 \
        "$destdir$prefix/share/bash-completion/completions/posthouse" \
        "$destdir$prefix/share/zsh/site-functions/_posthouse" \
        "$destdir$prefix/share/fish/vendor_completions.d/posthouse.fish" \
        "$destdir$prefix/lib/sysusers.d/posthouse.conf" "$destdir$prefix/lib/tmpfiles.d/posthouse.conf"
    for role in node coordinator; do
        rm -f "$destdir$units/posthouse-$role.service" "$destdir$units/posthouse-$role.service.d"/[0-9][0-9][0-9].conf
        # A drop-in of the operator's own stays, and its folder with it.
        rmdir "$destdir$units/posthouse-$role.service.d" 2>/dev/null || true
    done
    # A user's data may lie in the same folder: what was installed is removed by its name.
    share=$destdir$prefix/share/posthouse
    for file in config/node.toml config/coordinator.toml doc/README.md doc/README.zh-CN.md doc/CHANGELOG.md doc/LICENSE \
        sysctl.d/posthouse.conf modules-load.d/posthouse.conf install.sh; do
        rm -f "$share/$file"
        rmdir "$share/${file%/*}" 2>/dev/null || true
    done
    [ -z "$purge" ] || rm -rf "$share"
    rmdir "$share" 2>/dev/null || true
    if [ -z "$destdir" ] && [ -z "$user" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    if [ -n "$purge" ]; then
        rm -rf "$destdir$etc"
        if [ -z "$user" ]; then
            rm -rf "$destdir/var/lib/posthouse" "$destdir/var/lib/posthouse-coordinator"
            if [ -z "$destdir" ] && getent passwd posthouse >/dev/null; then userdel posthouse; fi
        fi
        say "removed with configuration and data 已连同配置与数据一并删除"
    else
        say "removed; configuration and data stay 已卸载；配置与数据保留"
    fi
}

put() {
    mkdir -p "$destdir$(dirname "$3")"
    cp "$2" "$destdir$3.new"
    chmod "$1" "$destdir$3.new"
    mv -f "$destdir$3.new" "$destdir$3"
}

systemd_version() {
    if [ -z "${systemd_known:-}" ]; then
        systemd_known=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
        systemd_known=${systemd_known:-0}
    fi
    echo "$systemd_known"
}

main "$@"
