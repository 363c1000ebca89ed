//! Trees of files as tars, without ever leaving the folder that they are under.
//!
//! Two strangers meet here: who sends a tar, and who owns the folder that it goes into, or the folder that is read while
//! its pod may be changing it. The worst of them writes `..`, absolute paths, links that point out of the folder, devices,
//! names without end, and swaps folders for links at the right moment. So no path is ever resolved as a whole by its
//! text: the kernel opens each folder beneath the root and refuses links on the way (`openat2`), and everything else is
//! done by a single name in a folder that is open. How much is written is bounded by the file system it is written to.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::{
        stat::{
            FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat,
            utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat},
};
use tar::{Archive, Builder, EntryType, Header};

/// The longest name, or other words beside a file, that a tar may have.
const MAX_WORDS: u64 = 64 << 10;

/// What says of a file that it is as it was, so that its bytes are left out.
const UNCHANGED: &str = "ROADSTEAD.unchanged";

/// How much earlier than it is said to be something counts as changed: clocks of file systems tick coarsely.
const MARGIN: Duration = Duration::from_secs(2);

/// The most files with several names whose first name is remembered; further ones are copied.
const MAX_LINKS: usize = 100_000;

/// A tree that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no space left.
    #[error("there is no space left at {0}: it is full")]
    Full(String),
    /// The tar cannot be read.
    #[error("the tar cannot be read, or it is cut off")]
    Tar(#[source] io::Error),
    /// The tar could not be sent.
    #[error("the tar could not be written")]
    Write(#[source] io::Error),
    /// The tar has a name that leads elsewhere.
    #[error("{0:?} in the tar leads out of its folder")]
    Outside(String),
    /// The tar has something that nobody may bring along.
    #[error("{0:?} in the tar is {1}")]
    Unwelcome(String, &'static str),
    /// A file that is said to be as it was is not there.
    #[error("{0:?} is said to be unchanged, and is not there; send all of it")]
    Missing(String),
    /// A folder on the way is none, or was exchanged for a link.
    #[error("the folder of {0:?} is a link or no folder")]
    Link(String),
    /// Something could not be read or written.
    #[error("{0:?} cannot be read or written")]
    Io(String, #[source] io::Error),
}

/// What becomes of a tree.
#[derive(Debug, Clone, Default)]
pub struct Packing {
    /// Where it is in the tar.
    pub prefix: PathBuf,
    /// Files that were last changed before that are named without their bytes.
    pub since: Option<SystemTime>,
    /// To whom everything belongs: user and group. Otherwise it is as it is.
    pub owner: Option<(u32, u32)>,
}

/// What becomes of a tar.
#[derive(Debug, Clone, Default)]
pub struct Unpacking {
    /// Whether files belong to whom the tar says, with all bits of their modes. Otherwise they belong to whoever unpacks,
    /// who can always write them.
    pub owners: bool,
    /// Another name for what the tar has at its top.
    pub rename: Option<OsString>,
    /// Whether what the tar does not name is removed, and files that it calls unchanged stay.
    pub mirror: bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Opens the folder that a tree is under. What leads to it is the caller's own.
///
/// # Errors
/// When it is not a folder, or cannot be opened.
pub fn root(path: &Path) -> Result<OwnedFd, TreeError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|err| failed(path, err))
}

/// Writes everything under `root` as a tar. Devices, pipes and sockets are left out.
///
/// # Errors
/// When something cannot be read, or `out` takes no more.
pub fn pack(root: BorrowedFd<'_>, how: &Packing, out: impl Write) -> Result<(), TreeError> {
    let mut tar = Packer { tar: Builder::new(out), how, seen: HashMap::new() };
    let mut folders = vec![PathBuf::new()];
    while let Some(path) = folders.pop() {
        let folder = match open_beneath(root, &path) {
            // It went, or became something else, in between.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) if !is_empty(&path) => continue,
            folder => folder.map_err(|err| failed(&path, err))?,
        };
        let stat = fstat(&folder).map_err(|err| failed(&path, err))?;
        tar.folder(&path, &stat)?;
        for name in names(&folder, &path)? {
            let whole = path.join(&name);
            let Some(stat) = look(&folder, &name).map_err(|err| failed(&whole, err))? else {
                continue;
            };
            match kind(&stat) {
                SFlag::S_IFDIR => folders.push(whole),
                SFlag::S_IFLNK => tar.link(&folder, &name, &whole, &stat)?,
                SFlag::S_IFREG => tar.file(&folder, &name, &whole)?,
                _device_pipe_or_socket => (),
            }
        }
    }
    let mut out = tar.tar.into_inner().map_err(TreeError::Write)?;
    out.flush().map_err(TreeError::Write)
}

/// Writes one file as a tar.
///
/// # Errors
/// When it cannot be read, or `out` takes no more.
pub fn pack_file(file: File, how: &Packing, out: impl Write) -> Result<(), TreeError> {
    let mut tar = Packer { tar: Builder::new(out), how, seen: HashMap::new() };
    tar.regular(file.into(), Path::new(""))?;
    let mut out = tar.tar.into_inner().map_err(TreeError::Write)?;
    out.flush().map_err(TreeError::Write)
}

struct Packer<'a, W: Write> {
    tar: Builder<W>,
    how: &'a Packing,
    /// The first names of files that have several.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<'_, W> {
    fn named(&self, path: &Path) -> PathBuf {
        match is_empty(path) && !is_empty(&self.how.prefix) {
            true => self.how.prefix.clone(),
            false => self.how.prefix.join(path),
        }
    }

    fn folder(&mut self, path: &Path, stat: &FileStat) -> Result<(), TreeError> {
        let mut name = self.named(path);
        if is_empty(&name) {
            name = "./".into();
        }
        let mut header = self.header(stat, EntryType::Directory, 0);
        self.tar.append_data(&mut header, name, io::empty()).map_err(TreeError::Write)
    }

    fn link(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        whole: &Path,
        stat: &FileStat,
    ) -> Result<(), TreeError> {
        match readlinkat(folder, name) {
            Ok(target) => {
                let mut header = self.header(stat, EntryType::Symlink, 0);
                let whole = self.named(whole);
                self.tar.append_link(&mut header, whole, target).map_err(TreeError::Write)
            }
            // It went, or became something else, in between.
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
            Err(err) => Err(failed(whole, err)),
        }
    }

    fn file(&mut self, folder: &OwnedFd, name: &OsStr, whole: &Path) -> Result<(), TreeError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(folder, name, flags, Mode::empty()) {
            Ok(file) => self.regular(file, whole),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => Ok(()),
            Err(err) => Err(failed(whole, err)),
        }
    }

    fn regular(&mut self, file: OwnedFd, whole: &Path) -> Result<(), TreeError> {
        let stat = fstat(&file).map_err(|err| failed(whole, err))?;
        if kind(&stat) != SFlag::S_IFREG {
            return Ok(());
        }
        let named = self.named(whole);
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&key).cloned() {
                let mut header = self.header(&stat, EntryType::Link, 0);
                return self.tar.append_link(&mut header, named, first).map_err(TreeError::Write);
            }
            if self.seen.len() < MAX_LINKS {
                self.seen.insert(key, named.clone());
            }
        }
        if self.how.since.is_some_and(|since| !is_changed(&stat, since)) {
            let flag = [(UNCHANGED, b"1".as_slice())];
            self.tar.append_pax_extensions(flag).map_err(TreeError::Write)?;
            let mut header = self.header(&stat, EntryType::Regular, 0);
            return self.tar.append_data(&mut header, named, io::empty()).map_err(TreeError::Write);
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let mut header = self.header(&stat, EntryType::Regular, size);
        // A file that shrinks meanwhile is filled up, one that grows is cut: what follows it in the tar stays in place.
        let data = File::from(file).chain(io::repeat(0)).take(size);
        self.tar.append_data(&mut header, named, data).map_err(TreeError::Write)
    }

    fn header(&self, stat: &FileStat, kind: EntryType, size: u64) -> Header {
        let (user, group) = self.how.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(user.into());
        header.set_gid(group.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        header.set_size(size);
        header
    }
}

/// Whether something of a file, its owner and mode included, was changed since then.
fn is_changed(stat: &FileStat, since: SystemTime) -> bool {
    let secs = u64::try_from(stat.st_ctime).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs) + MARGIN >= since
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Unpacks a tar under `root`: over what is there, and never anywhere else.
///
/// # Errors
/// At the first thing that is wrong, or when there is no space left. What came before it stays.
pub fn unpack(
    root: BorrowedFd<'_>,
    input: impl Read,
    how: &Unpacking,
) -> Result<Unpacked, TreeError> {
    let mut archive = Archive::new(input);
    // Raw, because names without end would be read into memory otherwise.
    let entries = archive.entries().map_err(TreeError::Tar)?.raw(true);
    let mut done = Unpacked::default();
    let mut words = Words::default();
    let mut named = Named::default();
    for entry in entries {
        let mut entry = entry.map_err(TreeError::Tar)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            words.path = Some(long(&mut entry)?);
        } else if kind.is_gnu_longlink() {
            words.link = Some(long(&mut entry)?);
        } else if kind.is_pax_local_extensions() {
            words.read(&long(&mut entry)?, entry.header())?;
        } else if kind.is_pax_global_extensions() {
            long(&mut entry)?;
        } else {
            let words = std::mem::take(&mut words);
            let size = entry.header().entry_size().map_err(TreeError::Tar)?;
            if words.size.is_some_and(|wanted| wanted != size) {
                let why = "too large for this form of tar; write one with `--format=gnu`";
                return Err(TreeError::Unwelcome(text(&entry.path_bytes()), why));
            }
            let name = words.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
            let path = inside(&name, how)?;
            if how.mirror {
                named.add(&path);
            }
            match how.mirror && words.unchanged {
                true => stays(root, &path)?,
                false => place(root, &path, &mut entry, &words, how)?,
            }
            done.entries += 1;
            done.bytes += if kind.is_file() { size } else { 0 };
        }
    }
    if how.mirror {
        remove(root, &|path| !named.has(path))?;
    }
    Ok(done)
}

/// The paths that a tar named, as what a secret of our own makes of them: a million of them take a few megabytes.
#[derive(Default)]
struct Named {
    secret: RandomState,
    paths: HashSet<u64>,
}

impl Named {
    fn add(&mut self, path: &Path) {
        self.paths.insert(self.secret.hash_one(path));
    }

    fn has(&self, path: &Path) -> bool {
        self.paths.contains(&self.secret.hash_one(path))
    }
}

/// Makes sure that a file which is said to be as it was is there.
fn stays(root: BorrowedFd<'_>, path: &Path) -> Result<(), TreeError> {
    let missing = || TreeError::Missing(text(path.as_os_str().as_bytes()));
    let (parent, name) = split(path);
    let parent = open_beneath(root, parent).map_err(|_gone| missing())?;
    let stat = look(&parent, name).map_err(|err| failed(path, err))?;
    match stat.is_some_and(|stat| kind(&stat) == SFlag::S_IFREG) {
        true => Ok(()),
        false => Err(missing()),
    }
}

/// Removes everything under `root`.
///
/// # Errors
/// When something cannot be removed.
pub fn clear(root: BorrowedFd<'_>) -> Result<(), TreeError> {
    remove(root, &|_any| true)
}

/// Removes what is `unwanted`: a folder with everything in it.
fn remove(root: BorrowedFd<'_>, unwanted: &dyn Fn(&Path) -> bool) -> Result<(), TreeError> {
    // Each folder is met twice: to look into it, and to be removed once it is empty.
    let mut folders: Vec<(PathBuf, bool)> = vec![(PathBuf::new(), false)];
    while let Some((path, emptied)) = folders.pop() {
        if emptied {
            let (parent, name) = split(&path);
            let parent = beneath(root, parent)?;
            gone(unlinkat(&parent, name, UnlinkatFlags::RemoveDir), &path)?;
            continue;
        }
        let folder = beneath(root, &path)?;
        if !is_empty(&path) && unwanted(&path) {
            folders.push((path.clone(), true));
        }
        for name in names(&folder, &path)? {
            let whole = path.join(&name);
            match look(&folder, &name).map_err(|err| failed(&whole, err))? {
                Some(stat) if kind(&stat) == SFlag::S_IFDIR => folders.push((whole, false)),
                Some(_) if !unwanted(&whole) => (),
                Some(_) => {
                    gone(unlinkat(&folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir), &whole)?;
                }
                None => (),
            }
        }
    }
    Ok(())
}

/// What a tar says of the next entry in entries of its own.
#[derive(Debug, Default)]
struct Words {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    owner: (Option<u32>, Option<u32>),
    unchanged: bool,
}

impl Words {
    fn read(&mut self, bytes: &[u8], header: &Header) -> Result<(), TreeError> {
        let broken = || TreeError::Unwelcome(text(&header.path_bytes()), "not to be understood");
        for extension in tar::PaxExtensions::new(bytes) {
            let extension = extension.map_err(TreeError::Tar)?;
            let number = || {
                let text = std::str::from_utf8(extension.value_bytes()).ok();
                text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(broken)
            };
            let id = || number().map(|id| u32::try_from(id).ok());
            match extension.key_bytes() {
                b"path" => self.path = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(extension.value_bytes().to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.owner.0 = id()?,
                b"gid" => self.owner.1 = id()?,
                key if key == UNCHANGED.as_bytes() => self.unchanged = true,
                _times_and_attributes => (),
            }
        }
        Ok(())
    }
}

fn long(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, TreeError> {
    let size = entry.header().entry_size().map_err(TreeError::Tar)?;
    if size > MAX_WORDS {
        return Err(TreeError::Unwelcome(text(&entry.path_bytes()), "a name that is too long"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(TreeError::Tar)?;
    if entry.header().entry_type() != EntryType::XHeader && bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// The path beneath the root that a name in a tar means.
fn inside(name: &[u8], how: &Unpacking) -> Result<PathBuf, TreeError> {
    let outside = || TreeError::Outside(text(name));
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => (),
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(outside());
            }
        }
    }
    let Some(top) = &how.rename else { return Ok(path) };
    // The first name is exchanged, whatever it is; a second top would end up in the first.
    let rest = path.components().skip(1).collect::<PathBuf>();
    Ok(match rest.as_os_str().is_empty() {
        true => PathBuf::from(top),
        false => Path::new(top).join(rest),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of entries are not all public")]
fn place(
    root: BorrowedFd<'_>,
    path: &Path,
    entry: &mut tar::Entry<'_, impl Read>,
    words: &Words,
    how: &Unpacking,
) -> Result<(), TreeError> {
    let kind = entry.header().entry_type();
    let mode = entry.header().mode().map_err(TreeError::Tar)?;
    let owner = owner(entry.header(), words, how)?;
    if is_empty(path) {
        let folder = root.try_clone_to_owned().map_err(|err| said(path, err))?;
        return if kind.is_dir() && how.owners {
            dress(&folder, path, mode, owner, how)
        } else {
            Ok(())
        };
    }
    let (parent, name) = split(path);
    let parent = folder(root, parent)?;
    let fault = |err| failed(path, err);
    match kind {
        EntryType::Directory => {
            let made = make_folder(&parent, name).map_err(fault)?;
            dress(&made, path, mode, owner, how)
        }
        EntryType::Regular | EntryType::Continuous => {
            clear_way(&parent, name).map_err(fault)?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            let made =
                openat(&parent, name, flags | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR);
            let mut made = File::from(made.map_err(fault)?);
            copy(entry, &mut made, path)?;
            let mtime = entry.header().mtime().unwrap_or_default();
            let made = OwnedFd::from(made);
            dress(&made, path, mode, owner, how)?;
            let time = TimeSpec::new(i64::try_from(mtime).unwrap_or_default(), 0);
            futimens(&made, &time, &time).map_err(fault)
        }
        EntryType::Symlink => {
            let target = target(entry, words)?;
            clear_way(&parent, name).map_err(fault)?;
            symlinkat(OsStr::from_bytes(&target), &parent, name).map_err(fault)?;
            if let Some((user, group)) = owner {
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                fchownat(&parent, name, Some(user), Some(group), flags).map_err(fault)?;
            }
            let mtime = entry.header().mtime().unwrap_or_default();
            let time = TimeSpec::new(i64::try_from(mtime).unwrap_or_default(), 0);
            utimensat(&parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(fault)
        }
        EntryType::Link => {
            let target = inside(&target(entry, words)?, how)?;
            let (from, first) = split(&target);
            let from = beneath(root, from)?;
            let stat = look(&from, first).map_err(fault)?;
            if stat.is_none_or(|stat| self::kind(&stat) != SFlag::S_IFREG) {
                return Err(TreeError::Unwelcome(
                    text(path.as_os_str().as_bytes()),
                    "a second name of no file",
                ));
            }
            clear_way(&parent, name).map_err(fault)?;
            linkat(&from, first, &parent, name, LinkatFlags::empty()).map_err(fault)
        }
        // Nobody misses a pipe: what uses one makes it.
        EntryType::Fifo => Ok(()),
        EntryType::Char | EntryType::Block => {
            Err(TreeError::Unwelcome(text(path.as_os_str().as_bytes()), "a device"))
        }
        _other => Err(TreeError::Unwelcome(
            text(path.as_os_str().as_bytes()),
            "neither a file nor a folder nor a link",
        )),
    }
}

fn target(entry: &tar::Entry<'_, impl Read>, words: &Words) -> Result<Vec<u8>, TreeError> {
    let target =
        words.link.clone().or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
    target.ok_or_else(|| TreeError::Unwelcome(text(&entry.path_bytes()), "a link to nothing"))
}

fn owner(header: &Header, words: &Words, how: &Unpacking) -> Result<Option<(Uid, Gid)>, TreeError> {
    if !how.owners {
        return Ok(None);
    }
    let number = |id: io::Result<u64>| {
        let id = id.map_err(TreeError::Tar)?;
        let strange =
            || TreeError::Unwelcome(text(&header.path_bytes()), "of an owner without a number");
        u32::try_from(id).map_err(|_large| strange())
    };
    let user = words.owner.0.map_or_else(|| number(header.uid()), Ok)?;
    let group = words.owner.1.map_or_else(|| number(header.gid()), Ok)?;
    Ok(Some((Uid::from_raw(user), Gid::from_raw(group))))
}

fn dress(
    made: &OwnedFd,
    path: &Path,
    mode: u32,
    owner: Option<(Uid, Gid)>,
    how: &Unpacking,
) -> Result<(), TreeError> {
    let fault = |err| failed(path, err);
    if let Some((user, group)) = owner {
        fchown(made, Some(user), Some(group)).map_err(fault)?;
    }
    let is_folder = kind(&fstat(made).map_err(fault)?) == SFlag::S_IFDIR;
    let mode = match (how.owners, is_folder) {
        (true, _) => mode & 0o7777,
        (false, true) => (mode & 0o777) | 0o700,
        (false, false) => (mode & 0o777) | 0o200,
    };
    fchmod(made, Mode::from_bits_truncate(mode)).map_err(fault)
}

fn copy(from: &mut impl Read, to: &mut File, path: &Path) -> Result<(), TreeError> {
    let mut chunk = vec![0_u8; 64 << 10];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(TreeError::Tar(err)),
        };
        to.write_all(chunk.get(..read).unwrap_or_default()).map_err(|err| said(path, err))?;
    }
}

/// The folder at `path` beneath the root, without following a link.
fn beneath(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, TreeError> {
    open_beneath(root, path).map_err(|err| failed(path, err))
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let path = if is_empty(path) { Path::new(".") } else { path };
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat2(root, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// The folder at `path` beneath the root, made if it is not there.
fn folder(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, TreeError> {
    match open_beneath(root, path) {
        Err(Errno::ENOENT) => (),
        other => return other.map_err(|err| failed(path, err)),
    }
    let mut folder = beneath(root, Path::new(""))?;
    for part in path.components() {
        folder = make_folder(&folder, part.as_os_str()).map_err(|err| failed(path, err))?;
    }
    Ok(folder)
}

fn make_folder(parent: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let is_folder = |stat: FileStat| kind(&stat) == SFlag::S_IFDIR;
    match look(parent, name)? {
        Some(stat) if is_folder(stat) => (),
        // The tar has a folder where there is something else.
        Some(_) => {
            unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
            mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
        }
        None => mkdirat(parent, name, Mode::from_bits_truncate(0o755))?,
    }
    open_beneath(parent.as_fd(), Path::new(name))
}

/// Removes what is where a file or a link is to be; a folder is not removed.
fn clear_way(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or(OsStr::new(".")))
}

fn names(folder: &OwnedFd, path: &Path) -> Result<Vec<OsString>, TreeError> {
    // Opened once more, because reading it moves its place in it.
    let again = openat(folder, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let again = again.map_err(|err| failed(path, err))?;
    let mut dir = Dir::from_fd(again).map_err(|err| failed(path, err))?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(|err| failed(path, err))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

/// What has that name in a folder, if anything has.
fn look(folder: &OwnedFd, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn gone(result: nix::Result<()>, path: &Path) -> Result<(), TreeError> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other.map_err(|err| failed(path, err)),
    }
}

fn failed(path: &Path, err: Errno) -> TreeError {
    match matches!(err, Errno::ELOOP | Errno::EXDEV | Errno::ENOTDIR) {
        true => TreeError::Link(text(path.as_os_str().as_bytes())),
        false => said(path, err.into()),
    }
}

fn said(path: &Path, err: io::Error) -> TreeError {
    let shown = text(path.as_os_str().as_bytes());
    match matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        true => TreeError::Full(shown),
        false => TreeError::Io(shown, err),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn tar(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, value) in entries {
            let mut header = Header::new_gnu();
            // Straight into the header: `tar` itself would not write most of these.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(Uid::current().as_raw().into());
            header.set_gid(Gid::current().as_raw().into());
            header.set_mtime(1_000);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let data = if is_link { "" } else { *value };
            if is_link {
                header.as_old_mut().linkname[..value.len()].copy_from_slice(value.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            tar.append(&header, data.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn try_unpack(folder: &Path, tar: &[u8]) -> Result<Unpacked, TreeError> {
        unpack(
            root(folder).unwrap().as_fd(),
            tar,
            &Unpacking { owners: true, ..Unpacking::default() },
        )
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep: PathBuf = std::iter::repeat_n("folder-with-a-long-name", 12).collect();
        std::fs::create_dir_all(one.path().join(&deep)).unwrap();
        std::fs::write(one.path().join(&deep).join("leaf"), "deep down").unwrap();
        std::fs::write(one.path().join("first"), vec![7_u8; 200_000]).unwrap();
        std::fs::hard_link(one.path().join("first"), one.path().join("second")).unwrap();
        std::fs::set_permissions(one.path().join("first"), PermissionsExt::from_mode(0o640))
            .unwrap();
        symlink("/etc/passwd", one.path().join("away")).unwrap();
        std::fs::create_dir(one.path().join("empty")).unwrap();

        let mut bytes = Vec::new();
        pack(root(one.path()).unwrap().as_fd(), &Packing::default(), &mut bytes).unwrap();
        let done = try_unpack(two.path(), &bytes).unwrap();
        assert_eq!(done.bytes, 200_009);
        let second = std::fs::metadata(two.path().join("second")).unwrap();
        let first = std::fs::metadata(two.path().join("first")).unwrap();
        assert_eq!(
            (first.ino(), first.len(), first.mode() & 0o7777),
            (second.ino(), 200_000, 0o640)
        );
        assert_eq!(std::fs::read_link(two.path().join("away")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(std::fs::read(two.path().join(&deep).join("leaf")).unwrap(), b"deep down");
        assert!(two.path().join("empty").is_dir());

        // Over itself, and after it was cleared.
        try_unpack(two.path(), &bytes).unwrap();
        clear(root(two.path()).unwrap().as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(two.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists(), "a link was followed");
    }

    #[test]
    fn hostile_tars_stay_inside() {
        use EntryType::{Block, Char, Directory, Link, Regular, Symlink};
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::write(outer.path().join("victim"), "safe").unwrap();
        let check = |entries: &[(&str, EntryType, &str)], wanted: &str| {
            let _not_there = std::fs::remove_dir_all(&inner);
            std::fs::create_dir(&inner).unwrap();
            symlink("..", inner.join("planted")).unwrap();
            let err = try_unpack(&inner, &tar(entries)).unwrap_err().to_string();
            assert!(err.contains(wanted), "{err}");
            assert_eq!(std::fs::read(outer.path().join("victim")).unwrap(), b"safe");
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2, "{entries:?}");
        };
        check(&[("../victim", Regular, "x")], "leads out");
        check(&[("a/../../victim", Regular, "x")], "leads out");
        check(&[("/victim", Regular, "x")], "leads out");
        check(&[("out", Symlink, ".."), ("out/victim", Regular, "x")], "link");
        check(&[("planted/victim", Regular, "x")], "link");
        check(&[("planted/new", Directory, "")], "link");
        check(&[("name", Link, "../victim")], "leads out");
        check(&[("name", Link, "planted/victim")], "link");
        check(&[("name", Link, "planted")], "second name");
        check(&[("disk", Block, "")], "device");
        check(&[("tty", Char, "")], "device");
    }

    #[test]
    fn a_file_takes_the_place_of_a_link_and_not_of_its_target() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(outer.path().join("victim"), "safe").unwrap();
        symlink("../victim", inner.join("name")).unwrap();
        try_unpack(&inner, &tar(&[("name", EntryType::Regular, "new")])).unwrap();
        assert_eq!(std::fs::read(outer.path().join("victim")).unwrap(), b"safe");
        assert_eq!(std::fs::read(inner.join("name")).unwrap(), b"new");
    }

    #[test]
    fn names_without_end_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let input = header.as_bytes().as_slice().chain(io::repeat(b'a'));
        let root = root(folder.path()).unwrap();
        let err = unpack(root.as_fd(), input, &Unpacking::default()).unwrap_err().to_string();
        assert!(err.contains("too long"), "{err}");
        assert!(matches!(try_unpack(folder.path(), &[1; 700]), Err(TreeError::Tar(_))));
    }

    #[test]
    fn a_copy_can_have_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let how = Unpacking { rename: Some("new".into()), ..Unpacking::default() };
        let entries = [("old", EntryType::Directory, ""), ("old/file", EntryType::Regular, "x")];
        unpack(root(folder.path()).unwrap().as_fd(), tar(&entries).as_slice(), &how).unwrap();
        assert_eq!(std::fs::read(folder.path().join("new/file")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_mirror_takes_what_changed() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(one.path().join("sub")).unwrap();
        std::fs::write(one.path().join("sub/same"), "same").unwrap();
        std::fs::write(one.path().join("gone"), "gone").unwrap();
        let copy = |since: Option<SystemTime>| {
            let how = Packing { since, ..Packing::default() };
            let mut bytes = Vec::new();
            pack(root(one.path()).unwrap().as_fd(), &how, &mut bytes).unwrap();
            let how = Unpacking { owners: true, mirror: true, rename: None };
            unpack(root(two.path()).unwrap().as_fd(), bytes.as_slice(), &how)
        };
        std::fs::create_dir_all(two.path().join("not/there")).unwrap();
        assert_eq!(copy(None).unwrap().bytes, 8);
        std::fs::remove_file(one.path().join("gone")).unwrap();
        // Everything is older than a time to come: nothing is sent.
        let later = SystemTime::now() + Duration::from_secs(60);
        assert_eq!(copy(Some(later)).unwrap().bytes, 0);
        assert_eq!(std::fs::read(two.path().join("sub/same")).unwrap(), b"same");
        assert_eq!(std::fs::read_dir(two.path()).unwrap().count(), 1);
        let earlier = SystemTime::now() - Duration::from_secs(60);
        assert_eq!(copy(Some(earlier)).unwrap().bytes, 4);
        std::fs::remove_file(two.path().join("sub/same")).unwrap();
        assert!(matches!(copy(Some(later)), Err(TreeError::Missing(_))));
    }
}
