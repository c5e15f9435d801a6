//! The list of connectors: one line each. The command line's help, the configuration reference and the
//! console's list come from it.

use crate::{Connector, SettingError, Settings, memory, mysql, postgres, sqlite, sqlserver};
use posthouse_platform::settings::nearest;

pub const CONNECTORS: &[&dyn Connector] =
    &[&memory::Memory, &mysql::Mysql, &postgres::Postgres, &sqlite::Sqlite, &sqlserver::SqlServer];

/// The connector of `kind = "…"`.
pub fn find(kind: &str) -> Option<&'static dyn Connector> {
    CONNECTORS.iter().copied().find(|connector| connector.kind() == kind)
}

/// All kinds, for a message about one that does not exist.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|connector| connector.kind())
}

/// Checks settings that are all text, against the keys there are and whether each is needed.
pub(crate) fn check_texts(settings: &Settings, known: &[(&str, bool)]) -> Vec<SettingError> {
    let mut errors = Vec::new();
    for (key, value) in settings {
        let what = match known.iter().find(|(name, _)| name == key) {
            None => "there is no such key".to_owned(),
            Some(_) if value.as_str().is_none_or(str::is_empty) => "it is text".to_owned(),
            Some(_) => continue,
        };
        let nearest = nearest(key, known.iter().map(|(name, _)| *name)).filter(|name| name != key);
        errors.push(SettingError { key: key.clone(), what, nearest });
    }
    for (key, _) in known.iter().filter(|(key, needed)| *needed && !settings.contains_key(*key)) {
        errors.push(SettingError { key: (*key).to_owned(), what: format!("`{key}` is missing"), nearest: None });
    }
    errors
}
