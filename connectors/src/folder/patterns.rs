//! Which names are in scope. `/` is matched by `**` only, so `*.pdf` means the top and `**/*.pdf` everywhere.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(crate) struct Patterns {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Patterns {
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self, globset::Error> {
        Ok(Self { include: if include.is_empty() { None } else { Some(set(include)?) }, exclude: set(exclude)? })
    }
    /// Neither this name nor anything beneath it is in scope.
    pub(crate) fn excludes(&self, name: &[u8]) -> bool {
        self.exclude.is_match(OsStr::from_bytes(name))
    }
    /// In scope for itself.
    pub(crate) fn includes(&self, name: &[u8]) -> bool {
        self.include.as_ref().is_none_or(|set| set.is_match(OsStr::from_bytes(name)))
    }
}

pub(crate) fn glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text.trim_end_matches('/')).literal_separator(true).build()
}

fn set(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut builder = GlobSetBuilder::new();
    for text in globs {
        builder.add(glob(text)?);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_one_folder_and_two_stars_do_not() {
        let top = Patterns::new(&["*.pdf".to_owned()], &[]).unwrap();
        assert!(top.includes(b"a.pdf") && !top.includes(b"x/a.pdf"));
        let all = Patterns::new(&["**/*.pdf".to_owned()], &["tmp/".to_owned()]).unwrap();
        assert!(all.includes(b"a.pdf") && all.includes(b"x/y/a.pdf") && !all.includes(b"a.txt"));
        assert!(all.excludes(b"tmp") && !all.excludes(b"x/tmp"));
        assert!(all.includes(b"\xc8\xcb/\xff.pdf"));
    }

    #[test]
    fn without_include_everything_is_in_scope() {
        let all = Patterns::new(&[], &[]).unwrap();
        assert!(all.includes(b"a") && all.includes(b"a/b"));
        assert!(glob("a[").is_err());
    }
}
