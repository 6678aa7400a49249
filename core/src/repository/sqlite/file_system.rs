//! Where a database must not be: several hosts do not share the memory that the WAL needs, and locks of network file systems
//! are not to be trusted.

use std::path::Path;

use crate::job::{Error, ErrorCode};

/// Magic numbers of file systems that reach over a network (`statfs(2)`).
#[cfg(target_os = "linux")]
const NETWORK: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x0000_564c, "NCP"),
    (0x7375_7245, "Coda"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Subtypes of FUSE that are disks of this host (`fuseblk` is one too, without a subtype).
#[cfg(target_os = "linux")]
const LOCAL_FUSE: &[&str] = &["fuseblk", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.encfs", "fuse.gocryptfs", "fuse.lxcfs", "virtiofs"];

/// The network file system of that magic number; `subtype` tells what is behind FUSE.
#[cfg(target_os = "linux")]
fn network(magic: u32, subtype: impl FnOnce() -> Option<String>) -> Option<String> {
    if magic == FUSE {
        // Unknown: sshfs, s3fs, rclone, gcsfuse and the like are more frequent than disks.
        return match subtype() {
            Some(name) if LOCAL_FUSE.contains(&name.as_str()) => None,
            Some(name) => Some(name),
            None => Some("FUSE".into()),
        };
    }
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, name)| (*name).to_owned())
}

/// The type of the file system that holds a folder, by the table of mounts: the mount point that is the longest prefix.
#[cfg(target_os = "linux")]
fn mounted(table: &str, folder: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in table.lines() {
        // 36 35 98:0 /root /mount/point rw,noatime shared:1 - fuse.sshfs host:/path rw
        let (Some(point), Some((_, rest))) = (line.split(' ').nth(4), line.split_once(" - ")) else { continue };
        let Some(kind) = rest.split(' ').next() else { continue };
        let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
        // A later mount hides an earlier one.
        if folder.starts_with(&point) && best.as_ref().is_none_or(|(length, _)| *length <= point.len()) {
            best = Some((point.len(), kind.to_owned()));
        }
    }
    best.map(|(_, kind)| kind)
}

/// The network file system that holds a folder, if it is one.
#[cfg(target_os = "linux")]
fn network_of(folder: &Path) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    let text = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a path that ends with NUL, and room for the answer, which is read only when the call wrote it.
    let magic = unsafe {
        if libc::statfs(text.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init().f_type as u32
    };
    network(magic, || mounted(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, folder))
}

#[cfg(target_os = "macos")]
fn network_of(folder: &Path) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    let text = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a path that ends with NUL, and room for the answer, which is read only when the call wrote it.
    let found = unsafe {
        if libc::statfs(text.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    let name: String = found.f_fstypename.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect();
    ["nfs", "smbfs", "afpfs", "webdav", "ftp", "macfuse", "osxfuse"].contains(&name.as_str()).then_some(name)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn network_of(folder: &Path) -> Option<String> {
    // \\server\share, also as a canonical path (\\?\UNC\server\share).
    use std::path::{Component, Prefix};
    match folder.components().next() {
        Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..)) => Some("a network share".into()),
        _ => None,
    }
}

/// Refuses a folder on a network file system.
pub fn check(folder: &Path) -> Result<(), Error> {
    match network_of(folder) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorCode::StoreUnavailable,
            format!(
                "{} is on a network file system ({name}), where SQLite loses data. Put the database on a disk of this host, or use PostgreSQL or MySQL for several hosts",
                folder.display()
            ),
        )),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        for (magic, name) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2"), (0x0102_1997, "9p"), (0x00c3_6400, "Ceph")] {
            assert_eq!(network(magic, || unreachable!()).as_deref(), Some(name));
        }
        // ext4, btrfs, xfs, tmpfs, overlayfs, zfs
        for magic in [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(network(magic, || unreachable!()), None);
        }
    }

    #[test]
    fn behind_fuse_only_disks_are_accepted() {
        for (subtype, refused) in [("fuse.sshfs", true), ("fuse.s3fs", true), ("fuse", true), ("fuseblk", false), ("virtiofs", false)] {
            assert_eq!(network(FUSE, || Some(subtype.into())).is_some(), refused, "{subtype}");
        }
        assert!(network(FUSE, || None).is_some());
    }

    #[test]
    fn the_innermost_mount_counts() {
        let table =
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /home/me/far\\040away rw shared:1 - fuse.sshfs host:/ rw\n3 1 0:6 / /home/me rw - xfs /dev/sdb rw\n";
        assert_eq!(mounted(table, Path::new("/home/me/far away/jobs")).as_deref(), Some("fuse.sshfs"));
        assert_eq!(mounted(table, Path::new("/home/me/farther")).as_deref(), Some("xfs"));
        assert_eq!(mounted(table, Path::new("/var")).as_deref(), Some("ext4"));
    }

    #[test]
    fn a_folder_of_this_host_is_accepted() {
        check(&std::env::temp_dir()).expect("a local folder");
    }
}
