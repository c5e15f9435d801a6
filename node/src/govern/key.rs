//! What a resource's rules need beside the configuration: the key of its hashes, and lists of codes.
//! Both are read anew for each transfer, so that a list may change without a restart.

use posthouse_platform::identity::{read_public, read_secret};
use posthouse_protocol::govern::MaskKey;
use posthouse_protocol::govern::keyed::{KEY_BYTES_MAX, KEY_BYTES_MIN};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where a key is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    File(PathBuf),
    /// Handed over by systemd, by its name.
    Credential(String),
    Environment(String),
}

impl KeyFile {
    /// A path (beneath `base` where it is relative), `credential:NAME` or `env:NAME`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("credential:") {
            let plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
            return if plain { Ok(Self::Credential(name.to_owned())) } else { Err("`credential:` takes a name") };
        }
        match text.strip_prefix("env:") {
            Some(name) if name.is_empty() || name.contains('=') => Err("`env:` takes a variable's name"),
            Some(name) => Ok(Self::Environment(name.to_owned())),
            None if text.is_empty() || text.contains('\0') => Err("a path is not empty and has no NUL"),
            None => Ok(Self::File(base.join(text))),
        }
    }

    /// One line break at the end belongs to the editor, not to the key. Blocks.
    pub fn read(&self) -> Result<MaskKey, Problem> {
        let missing = |file: String, cause: String| Problem::new(Code::ConfigMissing).with("file", file).cause(cause);
        let mut bytes = match self {
            Self::File(path) => read_secret(path, KEY_BYTES_MAX)?,
            Self::Credential(name) => {
                // The folder is closed to others; a file's mode there shows systemd's access list.
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    let cause = "systemd handed over no credentials: add `LoadCredential=` to the service";
                    missing(format!("credential:{name}"), cause.to_owned())
                })?;
                read_public(&Path::new(&folder).join(name), KEY_BYTES_MAX)?
            }
            Self::Environment(name) => {
                use std::os::unix::ffi::OsStringExt;
                let value = std::env::var_os(name);
                value.ok_or_else(|| missing(format!("env:{name}"), "it is not set".to_owned()))?.into_vec()
            }
        };
        for end in [b'\n', b'\r'] {
            bytes.pop_if(|last| *last == end);
        }
        MaskKey::new(bytes)
            .ok_or_else(|| missing(self.to_string(), format!("a key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes")))
    }
}

impl std::fmt::Display for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Environment(name) => write!(f, "env:{name}"),
        }
    }
}

/// A list of codes, one a line; blanks around them, empty lines and lines that begin with `#` do not count. Blocks.
pub fn read_codes(path: &Path) -> Result<BTreeSet<String>, Problem> {
    let wrong = |cause: String| Problem::new(Code::ConfigMissing).with("file", path.display()).cause(cause);
    let bytes = read_public(path, limits::CODES_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| wrong(format!("it is not UTF-8: {e}")))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let codes: BTreeSet<String> = lines.map(str::to_owned).collect();
    match codes.len() {
        0 => Err(wrong("it lists no code".to_owned())),
        many if many > limits::CODES_MAX => Err(wrong(format!("it lists more than {} codes", limits::CODES_MAX))),
        _ => Ok(codes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_that_others_may_read_or_that_is_short_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let write = |bytes: &[u8], mode: u32| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            KeyFile::parse("key", folder.path()).unwrap().read()
        };
        let key = write(b"0123456789abcdef\n", 0o600).unwrap();
        assert_eq!(Some(key), MaskKey::new(b"0123456789abcdef".to_vec()));
        assert_eq!(write(b"0123456789abcde\n", 0o600).unwrap_err().code, Code::ConfigMissing);
        assert_eq!(write(b"0123456789abcdef", 0o644).unwrap_err().code, Code::SecretExposed);
        for wrong in ["", "credential:", "credential:../x", "env:", "env:a=b"] {
            assert!(KeyFile::parse(wrong, folder.path()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_of_codes_has_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes");
        std::fs::write(&path, "# 性别\n0\n 1 \r\n\n2\n9\n").unwrap();
        assert_eq!(read_codes(&path).unwrap(), ["0", "1", "2", "9"].map(str::to_owned).into());
        std::fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(read_codes(&path).unwrap_err().code, Code::ConfigMissing);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_codes(&path).unwrap_err().code, Code::ConfigMissing);
    }
}
