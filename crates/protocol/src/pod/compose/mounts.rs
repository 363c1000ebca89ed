//! What a service finds in its file system beside its image.

use std::collections::BTreeMap;

use super::{Reader, absolute, refused::HOST_PATHS};
use crate::{
    pod::{
        AbsPath, Mount, Name, PlacedFile, Tmpfs,
        check::{Mounted, bytes_in_range, mode_in_range, mountable, unknown},
        limits,
        names::show,
        tree::{At, Fields},
    },
    resources::Bytes,
};

/// What a service's volumes, short and long, come to.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) volumes: BTreeMap<AbsPath, Mount>,
    pub(super) tmpfs: BTreeMap<AbsPath, Tmpfs>,
}

/// What a volume's mount says beside its place.
#[derive(Default)]
struct Options {
    no_copy: bool,
    read_only: bool,
}

/// What is placed as a file.
#[derive(Clone, Copy)]
pub(super) enum Placed {
    Secret,
    Config,
}

impl Placed {
    /// Where it is when it does not say.
    fn folder(self) -> &'static str {
        match self {
            Self::Secret => "/run/secrets",
            Self::Config => "",
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Secret => ("secret", "declare it under secrets, with file or environment"),
            Self::Config => {
                ("config", "declare it under configs, with content, file or environment")
            }
        }
    }
}

impl Reader<'_> {
    /// The secrets or configs that a service gets, by the file in which it finds them.
    pub(super) fn placed<T>(
        &self,
        at: &At<'_>,
        what: Placed,
        declared: &BTreeMap<Name, T>,
    ) -> BTreeMap<AbsPath, PlacedFile> {
        let mut all = BTreeMap::new();
        for at in at.items() {
            let (mut gid, mut mode, mut target, mut uid) = (None, None, None, None);
            let source = if at.value.is_object() {
                let Some(fields) = at.fields() else { continue };
                let source =
                    fields.require("source", "write source: NAME").and_then(|at| at.parse());
                gid = fields.get("gid").and_then(|at| at.whole());
                mode = fields.get("mode").and_then(|at| at.mode());
                target = fields.get("target").and_then(|at| Some((at.text()?, at)));
                uid = fields.get("uid").and_then(|at| at.whole());
                fields.finish(&[]);
                source
            } else {
                at.parse::<Name>()
            };
            let Some(source) = source else { continue };
            if !declared.contains_key(&source) {
                let (kind, hint) = what.words();
                at.fail(unknown(kind, source.as_str(), declared.keys(), hint));
                continue;
            }
            let (name, target_at) = match &target {
                Some((target, at)) => (target.as_str(), at),
                None => (source.as_str(), &at),
            };
            let place = match name.starts_with('/') {
                true => name.to_owned(),
                false => format!("{}/{name}", what.folder()),
            };
            let Some(place) = target_at.check(place.parse::<AbsPath>()) else { continue };
            if target_at.check(mountable(&place, Mounted::File)).is_none() {
                continue;
            }
            let file = PlacedFile { gid, mode: mode.unwrap_or(0o444), source, uid };
            if all.insert(place, file).is_some() {
                target_at.fail("another one is there already; give it a target of its own");
            }
        }
        all
    }

    pub(super) fn mounts(&self, fields: &Fields<'_>) -> Mounts {
        let mut mounts = Mounts::default();
        for at in fields.get("volumes").map(|at| at.items()).unwrap_or_default() {
            match at.value.is_object() {
                true => self.long_mount(&at, &mut mounts),
                false => self.short_mount(&at, &mut mounts),
            }
        }
        for at in fields.get("tmpfs").map(|at| at.one_or_many()).unwrap_or_default() {
            let Some(text) = at.text() else { continue };
            let (target, options) = text.split_once(':').unwrap_or((&text, ""));
            let mut tmpfs = Tmpfs { mode: 0o1777, size: Bytes(0) };
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=') {
                    Some(("size", size)) => tmpfs.size = at.check(size.parse()).unwrap_or_default(),
                    Some(("mode", mode)) => match u16::from_str_radix(mode, 8) {
                        Ok(mode) => tmpfs.mode = mode,
                        Err(_) => at.fail(format!("{} is no file mode such as 1777", show(mode))),
                    },
                    Some(_) | None => at.fail(format!(
                        "the option {} is not honoured; size and mode are",
                        show(option)
                    )),
                }
            }
            self.add_tmpfs(&at, target, tmpfs, &mut mounts);
        }
        mounts
    }

    fn add_tmpfs(&self, at: &At<'_>, target: &str, mut tmpfs: Tmpfs, mounts: &mut Mounts) {
        let Some(target) = at.check(absolute(target)) else { return };
        if at.check(mountable(&target, Mounted::Tmpfs)).is_none() {
            return;
        }
        if tmpfs.size.0 == 0 {
            tmpfs.size = Bytes(limits::DEFAULT_TMPFS);
            at.note(&format!("the tmpfs has no size, so {} is taken", tmpfs.size));
        }
        let size = at.check(bytes_in_range(tmpfs.size, &limits::TMPFS));
        let mode = at.check(mode_in_range(tmpfs.mode, 0o1777));
        if size.and(mode).is_none() {
            return;
        }
        if mounts.volumes.contains_key(&target) || mounts.tmpfs.insert(target, tmpfs).is_some() {
            at.fail("something is mounted there already; choose another place");
        }
    }

    fn add_volume(
        &self,
        at: &At<'_>,
        source: &str,
        target: &str,
        options: Options,
        mounts: &mut Mounts,
    ) {
        if source.starts_with(['.', '/', '~', '\\']) || source.contains(['/', '\\']) {
            return at.fail(HOST_PATHS);
        }
        let Some(source) = at.check(source.parse::<Name>()) else { return };
        let Some(target) = at.check(absolute(target)) else { return };
        if at.check(mountable(&target, Mounted::Volume)).is_none() {
            return;
        }
        let Options { no_copy, read_only } = options;
        let mount = Mount { no_copy, read_only, source };
        if mounts.tmpfs.contains_key(&target) || mounts.volumes.insert(target, mount).is_some() {
            at.fail("something is mounted there already; choose another place");
        }
    }

    fn short_mount(&self, at: &At<'_>, mounts: &mut Mounts) {
        let Some(text) = at.text() else { return };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [target] => {
                let target = target.to_owned();
                return at.fail(format!("the volume has no name; write it as in data:{target}"));
            }
            [source, target] => (*source, *target, ""),
            [source, target, options] => (*source, *target, *options),
            _ => {
                return at.fail(format!("{} is no volume; write it as in data:/data", show(&text)));
            }
        };
        let mut wanted = Options::default();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => wanted.read_only = true,
                "nocopy" => wanted.no_copy = true,
                "rw" => (),
                other => at.fail(format!(
                    "the option {} is not honoured; ro, rw and nocopy are",
                    show(other)
                )),
            }
        }
        self.add_volume(at, source, target, wanted, mounts);
    }

    fn long_mount(&self, at: &At<'_>, mounts: &mut Mounts) {
        let Some(fields) = at.fields() else { return };
        let kind =
            fields.require("type", "write type: volume or type: tmpfs").and_then(|at| at.text());
        let source = fields.get("source").and_then(|at| at.text());
        let target = fields.require("target", "write target: /data").and_then(|at| at.text());
        let read_only = fields.get("read_only").and_then(|at| at.truth()).unwrap_or_default();
        let mut tmpfs = Tmpfs { mode: 0o1777, size: Bytes(0) };
        if let Some(fields) = fields.get("tmpfs").and_then(|at| at.fields()) {
            tmpfs.size = fields.get("size").and_then(|at| at.parse()).unwrap_or_default();
            tmpfs.mode = fields.get("mode").and_then(|at| at.mode()).unwrap_or(tmpfs.mode);
            fields.finish(&[]);
        }
        let mut no_copy = false;
        if let Some(fields) = fields.get("volume").and_then(|at| at.fields()) {
            no_copy = fields.get("nocopy").and_then(|at| at.truth()).unwrap_or_default();
            fields.finish(&[
                ("labels", "a volume's labels are not passed on; remove this"),
                ("subpath", "a volume is mounted as a whole; give this its own volume"),
            ]);
        }
        fields.finish(&[
            ("bind", HOST_PATHS),
            ("consistency", "this is for Docker Desktop; remove it"),
            ("image", "images are not mounted; copy from it when you build"),
        ]);
        let Some(target) = target else { return };
        match (kind.as_deref(), source) {
            (Some("volume"), Some(source)) => {
                let options = Options { no_copy, read_only };
                self.add_volume(at, &source, &target, options, mounts);
            }
            (Some("volume"), None) => at.fail("the volume has no name; write source: NAME"),
            (Some("tmpfs"), None) if !read_only => self.add_tmpfs(at, &target, tmpfs, mounts),
            (Some("tmpfs"), _) => {
                at.fail("a tmpfs has no source and is not read_only; remove them")
            }
            (Some("bind"), _) => at.fail(HOST_PATHS),
            (Some(other), _) => {
                at.fail(format!("{} cannot be mounted; write volume or tmpfs", show(other)));
            }
            (None, _) => (),
        }
    }
}
