//! Looks through an image's layers before the engine unpacks them, and puts them together into what the engine loads.
//!
//! Any wallet may push an image, and any pod may name one of a registry of its publisher's own. The worst of them is small on
//! its way and large once it is unpacked, has files without number, or leads out of the folder that it is unpacked in. A layer
//! is read once, in memory of a fixed size, and counted as it will lie on the disk; what goes beyond the limits, or is
//! nothing that an image needs, ends that. So does what another reader of tars could take for something else than is judged
//! here: a name that is given twice, a key of the configuration in another spelling.
//!
//! What a name leads to is not followed: a link to an absolute path is one into the image, whose root Docker makes its own
//! (a chroot) before it unpacks. That files behind such links stay in the image rests on this.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use flate2::read::MultiGzDecoder;
use protocol::{pod::Digest, resources::Bytes};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, PaxExtensions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::ImageLimits;

/// The most layers of an image; overlay file systems take 128.
pub(crate) const MAX_LAYERS: usize = 127;

/// The largest configuration, which is a small JSON document.
pub(crate) const MAX_CONFIG: u64 = 1 << 20;

/// The most volumes that an image declares.
const MAX_DECLARED: usize = 16;

/// The shortest time between two of its health checks, in nanoseconds: starting one takes the machine's time, not the pod's.
const LEAST_INTERVAL: i64 = 1_000_000_000;

/// The longest name of a file, or target of a link: what Linux takes.
const MAX_NAME: u64 = 4_096;

/// The largest list of further attributes of a file.
const MAX_ATTRIBUTES: u64 = 1 << 20;

/// What a file takes of a disk at least: a block, or what a folder or a link takes of the file system's own tables.
const BLOCK: u64 = 4_096;

/// A tar's own unit.
const RECORD: usize = 512;

/// Where in a file's record some formats have what comes before its name.
const PREFIX: Range<usize> = 345..500;

/// What the name of a file begins with that a lower layer has and this one has not.
const WHITEOUT: &str = ".wh.";

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScreenError {
    #[error("it takes more than {0} once it is unpacked, which is the limit here")]
    TooLarge(Bytes),
    #[error("it has more than {0} files, which is the limit here")]
    TooMany(u64),
    #[error("it has {0} layers; the limit is {MAX_LAYERS}")]
    TooManyLayers(usize),
    #[error("it declares {0} volumes; the limit is {MAX_DECLARED}")]
    TooManyVolumes(usize),
    #[error("it checks its health more often than once a second")]
    Checks,
    #[error("its configuration has {0:?}, which is {1:?} in another spelling")]
    Spelling(String, &'static str),
    #[error("{0:?} leads out of the image")]
    Escapes(String),
    #[error("{0:?} is a device; images may not bring any")]
    Device(String),
    #[error("{0:?} is a sparse file; write it out in full")]
    Sparse(String),
    #[error("{0:?} is of a kind that images do not have")]
    Kind(String),
    #[error("{0:?} has contents, and is no file")]
    Contents(String),
    #[error("the name or the link of a file is given twice, or is empty, or has a zero byte in it")]
    Ambiguous,
    #[error("a name or a list of attributes in it is longer than any that Linux takes")]
    TooLong,
    #[error("its configuration cannot be read: {0}")]
    Config(#[source] serde_json::Error),
    #[error("its manifest names {got} layers and its configuration {wanted}")]
    Layers { got: usize, wanted: usize },
    #[error("layer {got} of it is not the one that its configuration names, {wanted}")]
    OtherLayer { got: String, wanted: String },
    #[error("layer {0} is packed with zstd; push the image with gzip")]
    Zstd(String),
    #[error("a layer of it cannot be read")]
    Read(#[from] io::Error),
}

/// What an image's configuration says, as far as it matters here.
#[derive(Debug)]
pub(crate) struct ImageConfig {
    /// The digests of its layers' uncompressed tars, lowest first.
    pub(crate) layers: Vec<Digest>,
}

#[derive(Deserialize)]
struct Wire {
    rootfs: RootFs,
    #[serde(default)]
    config: Option<Inner>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inner {
    #[serde(default)]
    healthcheck: Option<Check>,
    #[serde(default)]
    volumes: Option<serde_json::Map<String, serde_json::Value>>,
}

/// In nanoseconds; zero is the engine's own.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    interval: i64,
    #[serde(default)]
    start_interval: i64,
}

/// What is read of a configuration, by where it is.
const KNOWN: [(&str, &[&str]); 4] = [
    ("", &["config", "rootfs"]),
    ("/rootfs", &["diff_ids"]),
    ("/config", &["Healthcheck", "Volumes"]),
    ("/config/Healthcheck", &["Interval", "StartInterval"]),
];

/// Docker takes a key in whatever case for its own: what is refused here must not be there in another spelling.
fn is_spelled(bytes: &[u8]) -> Result<(), ScreenError> {
    let all: serde_json::Value = serde_json::from_slice(bytes).map_err(ScreenError::Config)?;
    for (at, known) in KNOWN {
        let object = all.pointer(at).and_then(serde_json::Value::as_object);
        for key in object.into_iter().flat_map(serde_json::Map::keys) {
            let same = |known: &&&str| key != **known && folded(key) == folded(known);
            if let Some(known) = known.iter().find(same) {
                return Err(ScreenError::Spelling(shown(key), known));
            }
        }
    }
    Ok(())
}

/// A key as Go compares it. By upper case first: some letters have no lower case but their own, as the long s.
fn folded(key: &str) -> String {
    key.to_uppercase().to_lowercase()
}

/// Whether an image may declare so many volumes, and check its health in these intervals (nanoseconds).
pub(crate) fn is_bearable(
    volumes: usize,
    intervals: impl IntoIterator<Item = i64>,
) -> Result<(), ScreenError> {
    if intervals.into_iter().any(|interval| (1..LEAST_INTERVAL).contains(&interval)) {
        return Err(ScreenError::Checks);
    }
    match volumes > MAX_DECLARED {
        true => Err(ScreenError::TooManyVolumes(volumes)),
        false => Ok(()),
    }
}

impl ImageConfig {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ScreenError> {
        // A key that is there twice is refused with it.
        let wire: Wire = serde_json::from_slice(bytes).map_err(ScreenError::Config)?;
        is_spelled(bytes)?;
        let config = wire.config.as_ref();
        let check = config.and_then(|config| config.healthcheck.as_ref());
        let intervals = check.map(|check| [check.interval, check.start_interval]);
        let declared = config.and_then(|config| config.volumes.as_ref()).map_or(0, |all| all.len());
        is_bearable(declared, intervals.into_iter().flatten())?;
        let layers = wire.rootfs.diff_ids;
        match layers.len() {
            many if many > MAX_LAYERS => Err(ScreenError::TooManyLayers(many)),
            _ => Ok(Self { layers }),
        }
    }
}

/// What is left of an image's limits, as its layers are gone through.
#[derive(Debug)]
pub(crate) struct Screen {
    limits: ImageLimits,
    bytes: u64,
    files: u64,
}

impl Screen {
    pub(crate) fn new(limits: ImageLimits) -> Self {
        Self { limits, bytes: limits.size.0, files: limits.files }
    }

    fn too_large(&self) -> ScreenError {
        ScreenError::TooLarge(self.limits.size)
    }

    /// Goes through one layer's tar, to its end.
    pub(crate) fn layer(&mut self, tar: impl Read) -> Result<(), ScreenError> {
        // A tar has a record of its own for each file, and some around: that is no more than is counted for the files.
        let most =
            self.bytes.saturating_add(self.files.saturating_mul(4 * RECORD as u64)) + (1 << 20);
        let mut tar = Counted { inner: tar, count: 0, most };
        let gone_through = self.entries(&mut tar).and_then(|()| {
            // What comes after the last entry is part of what the layer's digest is of.
            Ok(io::copy(&mut tar, &mut io::sink()).map(drop)?)
        });
        match gone_through {
            Err(ScreenError::Read(_)) if tar.is_over() => Err(self.too_large()),
            other => other,
        }
    }

    fn entries(&mut self, tar: &mut impl Read) -> Result<(), ScreenError> {
        let mut archive = tar::Archive::new(tar);
        // As it is written: what else the library would gather in memory is bounded here.
        let mut further = Further::default();
        for entry in archive.entries()?.raw(true) {
            let mut entry = entry?;
            let kind = entry.header().entry_type();
            if kind.is_gnu_longname() || kind.is_gnu_longlink() {
                let name = bounded(&mut entry, MAX_NAME)?;
                let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
                let place =
                    if kind.is_gnu_longname() { &mut further.path } else { &mut further.link };
                once(place, name)?;
                continue;
            }
            if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
                // Readers differ in what such a list makes of what was said before it.
                if std::mem::replace(&mut further.listed, kind.is_pax_local_extensions())
                    || (kind.is_pax_global_extensions() && !further.is_empty())
                {
                    return Err(ScreenError::Ambiguous);
                }
                let list = bounded(&mut entry, MAX_ATTRIBUTES)?;
                further.read(&list, kind.is_pax_global_extensions())?;
                continue;
            }
            let Further { path, link, listed: _ } = std::mem::take(&mut further);
            // What some readers put before the name, and others do not: so it must lead nowhere by itself.
            let prefix = entry.header().as_bytes().get(PREFIX).unwrap_or_default();
            let prefix = prefix.split(|byte| *byte == 0).next().unwrap_or_default();
            let prefix = String::from_utf8_lossy(prefix).into_owned();
            if climbs(Path::new(&prefix)) {
                return Err(ScreenError::Escapes(shown(&prefix)));
            }
            let own = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.unwrap_or(own);
            let own =
                entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            self.file(kind, &path, link.or(own).as_deref().unwrap_or_default(), entry.size())?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        size: u64,
    ) -> Result<(), ScreenError> {
        let escapes = || ScreenError::Escapes(shown(path));
        if climbs(Path::new(path)) || removes_above(path) {
            return Err(escapes());
        }
        if kind.is_symlink() {
            // In the image, whose root nothing climbs over; from where it stands a relative one must not.
            let target = Path::new(path).parent().unwrap_or(Path::new("")).join(link);
            depth(&target).ok_or_else(escapes)?;
        } else if kind.is_hard_link() {
            if climbs(Path::new(link)) {
                return Err(escapes());
            }
        } else if kind.is_character_special() || kind.is_block_special() {
            return Err(ScreenError::Device(shown(path)));
        } else if kind.is_gnu_sparse() {
            return Err(ScreenError::Sparse(shown(path)));
        } else if !(kind.is_file() || kind.is_contiguous() || kind.is_dir() || kind.is_fifo()) {
            return Err(ScreenError::Kind(shown(path)));
        }
        // Some readers pass over them, and others take them for the next files.
        if size > 0 && !(kind.is_file() || kind.is_contiguous()) {
            return Err(ScreenError::Contents(shown(path)));
        }
        let files = self.files.checked_sub(1);
        self.files = files.ok_or(ScreenError::TooMany(self.limits.files))?;
        let size = size.div_ceil(BLOCK).max(1).saturating_mul(BLOCK);
        self.bytes = self.bytes.checked_sub(size).ok_or_else(|| self.too_large())?;
        Ok(())
    }
}

/// What was said of the next file in front of it.
#[derive(Default)]
struct Further {
    path: Option<String>,
    link: Option<String>,
    /// Whether there was a list of attributes.
    listed: bool,
}

/// Keeps a name that another reader could not take for a different one.
fn once(place: &mut Option<String>, name: String) -> Result<(), ScreenError> {
    if place.is_some() || name.is_empty() || name.contains('\0') {
        return Err(ScreenError::Ambiguous);
    }
    *place = Some(name);
    Ok(())
}

impl Further {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none()
    }

    fn read(&mut self, list: &[u8], of_all: bool) -> Result<(), ScreenError> {
        for attribute in PaxExtensions::new(list) {
            let attribute = attribute?;
            let value = || String::from_utf8_lossy(attribute.value_bytes()).into_owned();
            let key = String::from_utf8_lossy(attribute.key_bytes()).into_owned();
            match key.as_str() {
                // What is said of all files by the few who do so is a comment.
                "path" | "linkpath" | "size" if of_all => return Err(ScreenError::Kind(key)),
                "path" => once(&mut self.path, value())?,
                "linkpath" => once(&mut self.link, value())?,
                // Readers differ in whose size they believe; none that fits needs this one.
                "size" => return Err(ScreenError::Kind(key)),
                sparse if sparse.starts_with("GNU.sparse.") => {
                    return Err(ScreenError::Sparse(self.path.clone().unwrap_or(key)));
                }
                _other => (),
            }
        }
        let longest = [&self.path, &self.link].into_iter().flatten().map(String::len).max();
        match longest.is_some_and(|longest| longest as u64 > MAX_NAME) {
            true => Err(ScreenError::TooLong),
            false => Ok(()),
        }
    }
}

fn bounded(from: impl Read, most: u64) -> Result<Vec<u8>, ScreenError> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(ScreenError::TooLong),
        false => Ok(bytes),
    }
}

/// A name for a message: who chose it shall not write much.
fn shown(path: &str) -> String {
    path.chars().take(100).collect()
}

/// Whether a path has a step up.
fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// Whether a name has Docker remove what is above it, or its own folder: `.wh.` before a name stands for its removal.
fn removes_above(path: &str) -> bool {
    let last = path.trim_end_matches('/').rsplit('/').next();
    last.and_then(|last| last.strip_prefix(WHITEOUT))
        .is_some_and(|of| ["", ".", ".."].contains(&of))
}

/// How deep below the root a path leads; nothing if it climbs over it on its way.
fn depth(path: &Path) -> Option<usize> {
    path.components().try_fold(0_usize, |depth, part| match part {
        Component::ParentDir => depth.checked_sub(1),
        Component::Normal(_) => Some(depth + 1),
        Component::RootDir => Some(0),
        Component::CurDir | Component::Prefix(_) => Some(depth),
    })
}

/// Ends with an error where there is more than expected.
struct Counted<R> {
    inner: R,
    count: u64,
    most: u64,
}

impl<R> Counted<R> {
    fn is_over(&self) -> bool {
        self.count > self.most
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        match self.is_over() {
            true => Err(io::Error::other("there is more than the limit")),
            false => Ok(read),
        }
    }
}

/// Writes down and hashes what is read.
struct Tee<'a, R> {
    from: R,
    to: BufWriter<&'a mut File>,
    hash: Sha256,
    count: u64,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let part = buffer.get(..read).unwrap_or_default();
        self.to.write_all(part)?;
        self.hash.update(part);
        self.count += read as u64;
        Ok(read)
    }
}

/// A turn to put an image together, which may take its limit of the disk meanwhile. It goes where the work goes, and is over
/// with the last of it.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
}

impl Turn {
    /// Waits for one of `turns`.
    pub(crate) async fn of(turns: &Arc<Semaphore>) -> io::Result<Self> {
        let place = Arc::clone(turns).acquire_owned().await;
        let place = place.map_err(|_closed| io::Error::other("the provider stops"))?;
        Ok(Self { _place: place, stop: CancellationToken::new() })
    }

    /// Whoever waits for the work keeps this: once it is dropped, threads that are at it end, too.
    pub(crate) fn awaited(&self) -> DropGuard {
        self.stop.clone().drop_guard()
    }
}

/// Ends with an error once nobody waits for what is read.
struct Awaited<R> {
    from: R,
    stop: CancellationToken,
}

impl<R: Read> Read for Awaited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stop.is_cancelled() {
            true => Err(io::Error::other("nobody waits for the image any more")),
            false => self.from.read(buffer),
        }
    }
}

/// An image as the engine loads it (a docker-archive), which is written layer by layer, each screened on its way.
#[derive(Debug)]
pub(crate) struct Archive {
    file: File,
    screen: Screen,
    layers: Vec<Digest>,
    turn: Turn,
}

/// An image that is whole: a docker-archive, to be read from its beginning. It takes its turn's room for as long as it is there.
#[derive(Debug)]
pub(crate) struct Loadable {
    pub(crate) file: File,
    pub(crate) turn: Turn,
}

impl Archive {
    /// A new one, in a file without a name in `folder`.
    pub(crate) fn new(folder: &Path, limits: ImageLimits, turn: Turn) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        Ok(Self { file, screen: Screen::new(limits), layers: Vec::new(), turn })
    }

    fn awaited<R>(&self, from: R) -> Awaited<R> {
        Awaited { from, stop: self.turn.stop.clone() }
    }

    /// The next layer, out of its uncompressed tar; it has to be `wanted`. Blocks.
    pub(crate) fn layer(&mut self, tar: impl Read, wanted: &Digest) -> Result<(), ScreenError> {
        let tar = self.awaited(tar);
        let start = self.file.stream_position()?;
        // How large it is, is known afterwards.
        self.file.write_all(&[0; RECORD])?;
        let (hash, count) = {
            let mut tee = Tee {
                from: BufReader::with_capacity(256 << 10, tar),
                to: BufWriter::with_capacity(256 << 10, &mut self.file),
                hash: Sha256::new(),
                count: 0,
            };
            self.screen.layer(&mut tee)?;
            tee.to.flush()?;
            (tee.hash, tee.count)
        };
        let got = format!("sha256:{}", hex::encode(hash.finalize()));
        if got != wanted.as_str() {
            return Err(ScreenError::OtherLayer { got, wanted: wanted.to_string() });
        }
        pad(&mut self.file, count)?;
        let end = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(start))?;
        let header = header(&format!("{}.tar", self.layers.len()), count)?;
        self.file.write_all(header.as_bytes())?;
        self.file.seek(SeekFrom::Start(end))?;
        self.layers.push(wanted.clone());
        Ok(())
    }

    /// The next layer, out of its tar, with gzip or without, which is read to its end. Blocks.
    pub(crate) fn packed_layer(
        &mut self,
        packed: impl Read,
        wanted: &Digest,
    ) -> Result<(), ScreenError> {
        let mut packed = self.awaited(packed);
        let mut magic = [0; 4];
        let mut begun = 0;
        while let Some(rest) = magic.get_mut(begun..).filter(|rest| !rest.is_empty()) {
            match packed.read(rest)? {
                0 => break,
                read => begun += read,
            }
        }
        let head = magic.get(..begun).unwrap_or_default();
        match magic {
            [0x28, 0xb5, 0x2f, 0xfd] => return Err(ScreenError::Zstd(wanted.to_string())),
            [0x1f, 0x8b, ..] => {
                self.layer(MultiGzDecoder::new(head.chain(&mut packed)), wanted)?;
            }
            _plain => self.layer(head.chain(&mut packed), wanted)?,
        }
        // What is checked at its end is checked.
        io::copy(&mut packed, &mut io::sink())?;
        Ok(())
    }

    /// The image whose configuration is `config`, under these names.
    pub(crate) fn finish(mut self, config: &[u8], names: &[&str]) -> io::Result<Loadable> {
        let layers: Vec<_> = (0..self.layers.len()).map(|number| format!("{number}.tar")).collect();
        let manifest = serde_json::json!([
            { "Config": "config.json", "RepoTags": names, "Layers": layers },
        ]);
        for (name, bytes) in
            [("config.json", config), ("manifest.json", manifest.to_string().as_bytes())]
        {
            self.file.write_all(header(name, bytes.len() as u64)?.as_bytes())?;
            self.file.write_all(bytes)?;
            pad(&mut self.file, bytes.len() as u64)?;
        }
        self.file.write_all(&[0; 2 * RECORD])?;
        self.file.rewind()?;
        Ok(Loadable { file: self.file, turn: self.turn })
    }
}

/// Fills up the last record of a file of `size` bytes.
fn pad(file: &mut File, size: u64) -> io::Result<()> {
    let record = RECORD as u64;
    let padding = (size.next_multiple_of(record) - size).try_into().unwrap_or(0);
    file.write_all([0; RECORD].get(..padding).unwrap_or_default())
}

fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(PathBuf::from(name))?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs());
    header.set_cksum();
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ImageLimits = ImageLimits { size: Bytes(64 << 10), files: 8 };

    /// A tar of files of these kinds, names, link targets and contents.
    fn tar(files: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (kind, path, link, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            let old = header.as_old_mut();
            old.name[..path.len()].copy_from_slice(path.as_bytes());
            old.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.extend(header.as_bytes());
            tar.extend(*bytes);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.extend([0; 1_024]);
        tar
    }

    fn check(files: &[(EntryType, &str, &str, &[u8])], wanted: Option<&str>) {
        let said = Screen::new(LIMITS).layer(tar(files).as_slice()).map_err(|err| err.to_string());
        match (said, wanted) {
            (Ok(()), None) => (),
            (Err(said), Some(wanted)) => assert!(said.contains(wanted), "{said}, not {wanted}"),
            (said, wanted) => panic!("{said:?} instead of {wanted:?}"),
        }
    }

    #[test]
    fn what_images_have_passes() {
        check(
            &[
                (EntryType::Directory, "./usr/bin/", "", b""),
                (EntryType::Regular, "usr/bin/.wh.old", "", b""),
                (EntryType::Regular, "/usr/bin/app", "", b"app"),
                (EntryType::Symlink, "usr/bin/sh", "../../bin/app", b""),
                (EntryType::Symlink, "etc/mtab", "/proc/mounts", b""),
                (EntryType::Link, "usr/bin/again", "usr/bin/app", b""),
                (EntryType::Fifo, "run/initctl", "", b""),
            ],
            None,
        );
        let long = format!("deep/{}", "d/".repeat(200));
        check(
            &[
                (EntryType::GNULongName, "././@LongLink", "", long.as_bytes()),
                (EntryType::Regular, "deep", "", b""),
                (EntryType::XHeader, "PaxHeaders/0", "", b"21 SCHILY.xattr.a=bc\n"),
                (EntryType::Regular, "x", "", b""),
                (EntryType::XGlobalHeader, "pax_global_header", "", b"13 comment=a\n"),
                (EntryType::Regular, "y", "", b""),
            ],
            None,
        );
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_refused() {
        check(&[(EntryType::Regular, "../etc/passwd", "", b"")], Some("leads out"));
        check(&[(EntryType::Regular, "a/../../b", "", b"")], Some("leads out"));
        check(&[(EntryType::Symlink, "a/b", "../../../etc", b"")], Some("leads out"));
        check(&[(EntryType::Link, "a", "../../etc/shadow", b"")], Some("leads out"));
        check(&[(EntryType::Block, "dev/sda", "", b"")], Some("is a device"));
        check(&[(EntryType::Char, "dev/mem", "", b"")], Some("is a device"));
        check(&[(EntryType::GNUSparse, "bomb", "", b"")], Some("is a sparse file"));
        check(&[(EntryType::new(b'V'), "label", "", b"")], Some("of a kind"));
        let up = b"../../etc/passwd";
        check(
            &[(EntryType::GNULongName, "l", "", up), (EntryType::Regular, "a", "", b"")],
            Some("leads out"),
        );
        check(
            &[
                (EntryType::XHeader, "p", "", b"14 path=../up\n"),
                (EntryType::Regular, "a", "", b""),
            ],
            Some("leads out"),
        );
        check(
            &[(EntryType::XHeader, "p", "", b"22 GNU.sparse.major=1\n")],
            Some("is a sparse file"),
        );
        check(&[(EntryType::XHeader, "p", "", b"12 size=100\n")], Some("of a kind"));
        check(&[(EntryType::XGlobalHeader, "p", "", b"13 path=../x\n")], Some("of a kind"));
        for removes in ["a/.wh...", "a/.wh..", "a/.wh."] {
            check(&[(EntryType::Regular, removes, "", b"")], Some("leads out"));
        }
    }

    #[test]
    fn what_readers_take_for_different_things_is_refused() {
        let long = |name: &'static [u8]| (EntryType::GNULongName, "l", "", name);
        let link = |name: &'static [u8]| (EntryType::GNULongLink, "l", "", name);
        let list = |list: &'static [u8]| (EntryType::XHeader, "p", "", list);
        let (path, comment) = (b"10 path=a\n", b"13 comment=a\n");
        let all = (EntryType::XGlobalHeader, "g", "", comment.as_slice());
        let file = (EntryType::Regular, "a", "", b"".as_slice());
        let symlink = (EntryType::Symlink, "a", "b", b"".as_slice());
        for twice in [
            [long(b"a"), long(b"b"), file].as_slice(),
            &[link(b"a"), link(b"b"), symlink],
            &[long(b"a"), list(path), file],
            &[list(path), long(b"a"), file],
            &[list(b"10 path=a\n10 path=b\n"), file],
            &[list(b"14 linkpath=a\n14 linkpath=b\n"), symlink],
            // Another list takes the place of the first, and one for all files takes away what was said of the next.
            &[list(path), list(comment), file],
            &[long(b"a"), all, file],
            &[list(comment), all, file],
            // What is empty is as good as not said, and a name ends with its first zero byte.
            &[long(b""), file],
            &[long(b"\0\0"), file],
            &[list(b"8 path=\n"), file],
            &[long(b"..\0/a"), file],
            &[link(b"/a\0b"), symlink],
            &[list(b"12 path=a\0b\n"), file],
        ] {
            check(twice, Some("is given twice, or is empty"));
        }
        check(&[list(comment), long(b"a\0"), file, list(path), file, all, all, file], None);

        // A file in what others take for the next record.
        let inner = tar(&[(EntryType::Regular, "../a", "", b"")]);
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory, EntryType::Fifo] {
            check(&[(kind, "a", "b", &inner[..512])], Some("has contents"));
        }

        // A prefix is one for who takes the record for that of another format.
        let prefixed = |magic: &[u8], prefix: &[u8]| {
            let mut tar = tar(&[(EntryType::Regular, "a", "", b"")]);
            tar[257..257 + magic.len()].copy_from_slice(magic);
            tar[345..345 + prefix.len()].copy_from_slice(prefix);
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&tar[..512]);
            header.set_cksum();
            tar[..512].copy_from_slice(header.as_bytes());
            Screen::new(LIMITS).layer(tar.as_slice())
        };
        for magic in [b"ustar\x0000", b"ustar\x0001", b"ustar  \0", b"\0\0\0\0\0\0\0\0"] {
            prefixed(magic, b"usr/lib").unwrap();
            let said = prefixed(magic, b"usr/../../etc").unwrap_err();
            assert!(matches!(said, ScreenError::Escapes(_)), "{said}");
        }
    }

    #[test]
    fn bombs_are_refused_as_they_are_read() {
        let large = vec![0; 40 << 10];
        check(&[(EntryType::Regular, "a", "", &large)], None);
        check(
            &[(EntryType::Regular, "a", "", &large), (EntryType::Regular, "b", "", &large)],
            Some("takes more than 64 KiB"),
        );
        let many: Vec<_> = (0..9).map(|_| (EntryType::Regular, "f", "", b"".as_slice())).collect();
        check(&many, Some("more than 8 files"));
        let long = vec![b'n'; 5_000];
        check(&[(EntryType::GNULongName, "l", "", &long)], Some("longer than any"));
        // A tar that does not end: a name, or a hole behind the last file.
        let endless = tar(&[(EntryType::Regular, "a", "", b"")]);
        let endless = endless.as_slice().chain(io::repeat(0));
        let said = Screen::new(LIMITS).layer(endless).unwrap_err();
        assert!(matches!(said, ScreenError::TooLarge(_)), "{said}");
        let mut huge = tar::Header::new_gnu();
        huge.set_size(1 << 50);
        huge.set_cksum();
        let said = Screen::new(LIMITS).layer(huge.as_bytes().chain(io::repeat(0))).unwrap_err();
        assert!(matches!(said, ScreenError::TooLarge(_)), "{said}");
        // Of all layers together.
        let mut screen = Screen::new(LIMITS);
        let layer = tar(&[(EntryType::Regular, "a", "", &large)]);
        screen.layer(layer.as_slice()).unwrap();
        screen.layer(layer.as_slice()).unwrap_err();
    }

    /// A turn, of one that there is.
    async fn turn() -> (Turn, Arc<Semaphore>) {
        let turns = Arc::new(Semaphore::new(1));
        (Turn::of(&turns).await.unwrap(), turns)
    }

    #[tokio::test]
    async fn an_image_keeps_its_turn_until_nobody_works_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let layer = tar(&[(EntryType::Regular, "a", "", b"contents")]);
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
        let digest: Digest = digest.parse().unwrap();
        let (turn, turns) = turn().await;
        let awaited = turn.awaited();
        let mut archive = Archive::new(folder.path(), LIMITS, turn).unwrap();
        archive.layer(layer.as_slice(), &digest).unwrap();
        // Whoever waited for it has gone.
        drop(awaited);
        let said = archive.layer(layer.as_slice(), &digest).unwrap_err();
        assert!(matches!(said, ScreenError::Read(_)), "{said}");
        archive.packed_layer(layer.as_slice(), &digest).unwrap_err();
        assert_eq!(turns.available_permits(), 0);
        let whole = archive.finish(b"{}", &[]).unwrap();
        assert_eq!(turns.available_permits(), 0);
        drop(whole);
        assert_eq!(turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn an_archive_has_the_layers_that_the_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let layer = tar(&[(EntryType::Regular, "a", "", b"contents")]);
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
        let digest: Digest = digest.parse().unwrap();
        let mut archive = Archive::new(folder.path(), LIMITS, turn().await.0).unwrap();
        archive.layer(layer.as_slice(), &digest).unwrap();
        let other = tar(&[(EntryType::Regular, "b", "", b"")]);
        let said = archive.layer(other.as_slice(), &digest).unwrap_err();
        assert!(matches!(said, ScreenError::OtherLayer { .. }), "{said}");

        let mut archive = Archive::new(folder.path(), LIMITS, turn().await.0).unwrap();
        archive.layer(layer.as_slice(), &digest).unwrap();
        let file = archive.finish(b"{}", &["app:1"]).unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(file.file).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            names.push((entry.path().unwrap().display().to_string(), bytes));
        }
        assert_eq!(names[0], ("0.tar".into(), layer));
        assert_eq!(names[1], ("config.json".into(), b"{}".to_vec()));
        let manifest: serde_json::Value = serde_json::from_slice(&names[2].1).unwrap();
        assert_eq!(manifest[0]["Layers"], serde_json::json!(["0.tar"]));
        assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1"]));
    }

    #[test]
    fn configurations_are_bounded() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let config = |layers: usize, volumes: usize| {
            let volumes = (0..volumes).map(|n| (format!("/{n}"), serde_json::json!({})));
            let config = serde_json::json!({
                "rootfs": { "diff_ids": vec![&digest; layers] },
                "config": { "Volumes": serde_json::Map::from_iter(volumes) },
            });
            ImageConfig::read(config.to_string().as_bytes()).map(|config| config.layers.len())
        };
        assert_eq!(config(127, 16).unwrap(), 127);
        assert!(matches!(config(128, 0), Err(ScreenError::TooManyLayers(128))));
        assert!(matches!(config(1, 17), Err(ScreenError::TooManyVolumes(17))));
        ImageConfig::read(b"{}").unwrap_err();
        let checked = |interval: i64| {
            let check = serde_json::json!({
                "rootfs": { "diff_ids": [] },
                "config": { "Healthcheck": { "Test": ["NONE"], "Interval": interval } },
            });
            ImageConfig::read(check.to_string().as_bytes()).is_ok()
        };
        assert!(checked(0) && checked(30_000_000_000) && !checked(1_000_000));
    }

    #[test]
    fn a_configuration_says_the_same_to_whoever_reads_it() {
        let read = |config: &str| ImageConfig::read(config.as_bytes());
        let often = r#"{ "Interval": 1 }"#;
        let config = |key: &str| {
            read(&format!(r#"{{ "rootfs": {{ "diff_ids": [] }}, "config": {{ {key} }} }}"#))
        };
        config(r#""Env": [], "ENV": [], "Labels": { "volumes": "" }"#).unwrap();
        for key in ["healthcheck", "HEALTHCHECK", "HealthCheck", "Healthchec\u{212a}"] {
            let said = config(&format!(r#""{key}": {often}"#)).unwrap_err();
            assert!(matches!(said, ScreenError::Spelling(_, "Healthcheck")), "{key}: {said}");
        }
        for key in ["volumes", "Volume\u{17f}"] {
            let said = config(&format!(r#""{key}": {{}}"#)).unwrap_err();
            assert!(matches!(said, ScreenError::Spelling(_, "Volumes")), "{key}: {said}");
        }
        let said = config(r#""Healthcheck": { "interval": 1 }"#).unwrap_err();
        assert!(matches!(said, ScreenError::Spelling(_, "Interval")), "{said}");
        for (other, known) in [("Config", "config"), ("RootFS", "rootfs")] {
            let said = format!(r#"{{ "rootfs": {{ "diff_ids": [] }}, "{other}": {{}} }}"#);
            let said = read(&said).unwrap_err();
            assert!(matches!(said, ScreenError::Spelling(_, to) if to == known), "{said}");
        }
        // Twice, of which a reader takes the last and another one both.
        let twice = format!(r#""Healthcheck": {often}, "Healthcheck": {{}}"#);
        assert!(matches!(config(&twice), Err(ScreenError::Config(_))));
        let twice = r#"{ "rootfs": { "diff_ids": [] }, "config": {}, "config": {} }"#;
        assert!(matches!(read(twice), Err(ScreenError::Config(_))));
        // As the engine says it.
        assert!(is_bearable(MAX_DECLARED, [0, LEAST_INTERVAL]).is_ok());
        assert!(matches!(is_bearable(0, [0, 1]), Err(ScreenError::Checks)));
        assert!(matches!(is_bearable(17, []), Err(ScreenError::TooManyVolumes(17))));
    }
}
