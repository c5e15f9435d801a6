//! The server as a program, for clients in other languages: prints where it listens, and ends with its input.
//!
//!     posthouse-test-tds [--encryption off|on|required|none] [--ca FILE] [--sql FILE]

use posthouse_test_tds::{Encryption, Options, Server};
use std::io::{Error, Read, Result, Write};

fn main() -> Result<()> {
    let mut options = Options::default();
    let (mut ca, mut sql) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| Error::other(format!("{argument} needs a value")))?;
        match (argument.as_str(), value.as_str()) {
            ("--encryption", "none") => options.encryption = Encryption::NotSupported,
            ("--encryption", "off") => options.encryption = Encryption::Off,
            ("--encryption", "on") => options.encryption = Encryption::On,
            ("--encryption", "required") => options.encryption = Encryption::Required,
            ("--ca", _) => ca = Some(value),
            ("--sql", _) => sql = Some(value),
            _ => return Err(Error::other(format!("{argument} {value} is not known"))),
        }
    }
    let server = Server::start(options)?;
    if let Some(file) = ca {
        std::fs::write(file, server.ca_pem())?;
    }
    if let Some(file) = sql {
        server.batch(&std::fs::read_to_string(file)?).map_err(|error| Error::other(error.to_string()))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", server.addr())?;
    out.flush()?;
    std::io::stdin().lock().read_to_end(&mut Vec::new())?;
    for unknown in server.unknown() {
        writeln!(out, "unknown: {unknown}")?;
    }
    Ok(())
}
