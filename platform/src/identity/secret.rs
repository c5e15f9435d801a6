//! Files that only their owner may read: written atomically with mode 0600, refused when anyone else may.
//! Also the format of the statement key: PKCS#8 of an Ed25519 key in PEM, which `openssl pkey` reads.

use posthouse_protocol::problem::{Code, Problem};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Writes `bytes` so that after a crash either the old or the new content is there, mode 0600.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    replace(path, bytes, 0o600).map_err(|e| storage(path, &e))
}

/// As [`write_secret`], for what everybody may read.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    replace(path, bytes, 0o644).map_err(|e| storage(path, &e))
}

/// Reads a secret of at most `max` bytes; refuses a file that others may read or that is not this user's.
pub fn read_secret(path: &Path, max: usize) -> Result<Vec<u8>, Problem> {
    let mut file = std::fs::File::open(path).map_err(|e| missing(path, &e))?;
    let meta = file.metadata().map_err(|e| missing(path, &e))?;
    let me = rustix::process::geteuid().as_raw();
    if meta.mode() & 0o077 != 0 {
        return Err(Problem::new(Code::SecretExposed)
            .with("file", path.display())
            .cause(format!("its mode is {:04o}", meta.mode() & 0o7777)));
    }
    if meta.uid() != me && me != 0 {
        return Err(Problem::new(Code::SecretExposed).with("file", path.display()).cause("it belongs to another user"));
    }
    read_bounded(&mut file, max).map_err(|e| missing(path, &e))
}

/// Reads a file of at most `max` bytes.
pub fn read_public(path: &Path, max: usize) -> Result<Vec<u8>, Problem> {
    let mut file = std::fs::File::open(path).map_err(|e| missing(path, &e))?;
    read_bounded(&mut file, max).map_err(|e| missing(path, &e))
}

/// Makes a new statement key from `seed` (32 random bytes) and keeps it at `path`.
pub fn write_statement_key(path: &Path, seed: &[u8; 32]) -> Result<(), Problem> {
    write_secret(path, pem("PRIVATE KEY", &ed25519_pkcs8(seed)).as_bytes())
}

/// The seed of a statement key kept by [`write_statement_key`].
pub fn read_statement_key(path: &Path) -> Result<[u8; 32], Problem> {
    let text = read_secret(path, SECRET_BYTES_MAX)?;
    let bad = || Problem::new(Code::ConfigMissing).with("file", path.display()).cause("it holds no Ed25519 key");
    let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| bad())?;
    let seed = der.secret_pkcs8_der().strip_prefix(ED25519_PKCS8_PREFIX).ok_or_else(bad)?;
    seed.try_into().map_err(|_| bad())
}

/// PKCS#8 of the Ed25519 key with this seed.
pub(super) fn ed25519_pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    [ED25519_PKCS8_PREFIX, seed.as_slice()].concat()
}

/// One PEM block.
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = folder.join(name);
    // A file left by a crash was never renamed into place; its mode is not to be trusted.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

fn read_bounded(file: &mut std::fs::File, max: usize) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut out)?;
    if out.len() > max { Err(std::io::Error::other(format!("it is longer than {max} bytes"))) } else { Ok(out) }
}

fn missing(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::ConfigMissing).with("file", path.display()).cause(error)
}
fn storage(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::StorageFailed).with("path", path.display()).cause(error)
}

/// A key, a token or a password with room to spare.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
/// Everything of an Ed25519 PKCS#8 (version 1) before its seed.
const ED25519_PKCS8_PREFIX: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_statement_key_reads_back_and_is_what_others_call_pkcs8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("statement.key");
        write_statement_key(&path, &[7; 32]).unwrap();
        assert_eq!(read_statement_key(&path).unwrap(), [7; 32]);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let der = PrivatePkcs8KeyDer::from_pem_slice(&std::fs::read(&path).unwrap()).unwrap();
        aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).unwrap();
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_secret(&path, b"x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read_secret(&path, 10).unwrap_err().code, Code::SecretExposed);
    }

    #[test]
    fn a_secret_longer_than_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_secret(&path, &[1; 11]).unwrap();
        assert!(read_secret(&path, 10).is_err());
        assert_eq!(read_secret(&path, 11).unwrap().len(), 11);
    }
}
