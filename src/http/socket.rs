//! Where the daemon listens: a Unix socket beside its database, for its own user alone.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The longest path that fits into a socket's address.
const PATH_BYTES: usize = 107;

/// The socket of a database: beside it, or under a digest of its path where that is too long for a socket's address.
pub fn path_for(database: &Path, configured: Option<&Path>, runtime_dir: Option<&Path>) -> PathBuf {
    let wanted = configured.map_or_else(
        || {
            let mut name = absolute(database).into_os_string();
            name.push(".sock");
            PathBuf::from(name)
        },
        absolute,
    );
    if wanted.as_os_str().len() <= PATH_BYTES {
        return wanted;
    }
    let digest = Sha256::digest(wanted.as_os_str().as_encoded_bytes());
    let mut half = [0_u8; 16];
    half.copy_from_slice(&digest[..16]);
    let name = format!("sagad-{:032x}.sock", u128::from_be_bytes(half));
    runtime_dir.unwrap_or_else(|| Path::new("/tmp")).join(name)
}

/// A name that means the same from every working folder; links in its folder are followed, so that all roads to one
/// database lead to one socket.
fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent().and_then(|folder| folder.canonicalize().ok()), whole.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => whole,
    }
}

/// Listens there; what a daemon that died left behind is replaced. Only who owns the database's lock may call this.
pub fn listen(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let what = format!("{} stands where the socket should be, and is none", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound under a name of its own, narrowed, and then moved into place: at no moment may others connect.
    let mut hidden = path.as_os_str().to_owned();
    hidden.push("~");
    let hidden = PathBuf::from(hidden);
    let bound = if hidden.as_os_str().len() <= PATH_BYTES { &hidden } else { path };
    drop(std::fs::remove_file(bound));
    let listener = tokio::net::UnixListener::bind(bound)?;
    std::fs::set_permissions(bound, std::fs::Permissions::from_mode(0o600))?;
    if bound != path {
        std::fs::rename(bound, path)?;
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_long_goes_elsewhere_under_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("a.db");
        assert_eq!(path_for(&short, None, None), folder.path().canonicalize().unwrap().join("a.db.sock"));
        let long = folder.path().join("x".repeat(120));
        let (first, second) = (path_for(&long, None, None), path_for(&folder.path().join("y".repeat(120)), None, None));
        assert!(first.starts_with("/tmp") && first.as_os_str().len() < PATH_BYTES);
        assert_ne!(first, second);
        assert!(path_for(&long, None, Some(Path::new("/run/user/7"))).starts_with("/run/user/7"));
        assert_eq!(path_for(&short, Some(Path::new("/run/s.sock")), None), PathBuf::from("/run/s.sock"));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        let again = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(again);
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(listen(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
