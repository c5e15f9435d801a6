//! Greeting, TLS, login.

use super::Boxed;
use crate::language::engine::Session;
use crate::line::Faulty;
use crate::server::Shared;
use crate::store::SqlError;
use crate::wire::greeting::{self, Encryption};
use crate::wire::handshake::Wrapped;
use crate::wire::login::{self, Login};
use crate::wire::packet::{self, LOGIN, PRELOGIN, Packet, Writer};
use crate::wire::tokens;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

/// The line as it is from then on, the session, and the size of packets; none when the login was refused.
pub(super) async fn begin(
    mut line: Faulty,
    shared: &Arc<Shared>,
    spid: u16,
) -> Result<Option<(Boxed, Session, usize)>> {
    let Some(message) = packet::read_message(&mut line).await? else { return Ok(None) };
    let asked = match (message.kind, greeting::read(&message.body)) {
        (PRELOGIN, Ok(asked)) => asked,
        (PRELOGIN, Err(broken)) => return refused(shared, &broken.0),
        (kind, _) => return refused(shared, &format!("a packet of kind {kind} before the greeting")),
    };
    let server = shared.options.encryption;
    let agreed = greeting::agree(asked.encryption, server);
    let mut writer = Writer::new(line, spid);
    writer.write(&greeting::write(agreed.unwrap_or(server))).await?;
    writer.end().await?;
    let mut line = writer.into_line();
    match agreed {
        // One side needs what the other has not: the client ends it.
        None => Ok(None),
        Some(Encryption::NotSupported) => {
            let message = packet::read_message(&mut line).await?;
            log_in(Box::new(line), message, shared, spid).await
        }
        Some(encryption) => {
            let mut tls = shared.tls.accept(Wrapped::new(line)).await?;
            tls.get_mut().0.done();
            let message = packet::read_message(&mut tls).await?;
            if encryption == Encryption::Off {
                // Only the login was to be hidden.
                let line = tls.into_inner().0.into_line();
                return log_in(Box::new(line), message, shared, spid).await;
            }
            log_in(Box::new(tls), message, shared, spid).await
        }
    }
}

fn refused<T>(shared: &Arc<Shared>, what: &str) -> Result<T> {
    let mut error = SqlError::new(
        17_828,
        format!("The prelogin packet used to open the connection is structurally invalid: {what}."),
    );
    error.unknown = true;
    shared.engine.note(&error, "the greeting");
    Err(Error::new(ErrorKind::InvalidData, error.text))
}

async fn log_in(
    stream: Boxed,
    message: Option<Packet>,
    shared: &Arc<Shared>,
    spid: u16,
) -> Result<Option<(Boxed, Session, usize)>> {
    let Some(message) = message else { return Ok(None) };
    let read = if message.kind == LOGIN {
        login::read(&message.body).map_err(SqlError::from)
    } else {
        Err(SqlError::unknown(format!("a packet of kind {} in place of a login", message.kind)))
    };
    let checked = read.and_then(|login| check(login, shared));
    let mut writer = Writer::new(stream, spid);
    let mut out = Vec::new();
    let login = match checked {
        Ok(login) => login,
        Err(error) => {
            shared.engine.note(&error, "the login");
            tokens::message(&mut out, &error, false);
            tokens::done(&mut out, tokens::DONE, tokens::FAILED, 0, 0);
            writer.write(&out).await?;
            writer.end().await?;
            return Ok(None);
        }
    };
    let size = match login.packet_size {
        0 => 4096,
        asked => asked.clamp(512, 32_767),
    };
    tokens::changed_text(&mut out, tokens::DATABASE, &shared.options.database, "master");
    tokens::changed_collation(&mut out);
    tokens::changed_text(&mut out, tokens::LANGUAGE, "us_english", "");
    tokens::login_ack(&mut out);
    tokens::changed_text(&mut out, tokens::PACKET_SIZE, &size.to_string(), "4096");
    tokens::done(&mut out, tokens::DONE, 0, 0, 0);
    writer.write(&out).await?;
    writer.end().await?;
    let session = Session::new(Arc::clone(&shared.engine), spid, &login.user);
    Ok(Some((writer.into_line(), session, size as usize)))
}

fn check(login: Login, shared: &Arc<Shared>) -> std::result::Result<Login, SqlError> {
    let options = &shared.options;
    if !(0x7200_0000..=0x7400_0004).contains(&login.version) {
        return Err(SqlError::unknown(format!("version 0x{:08x} of the protocol", login.version)));
    }
    if login.integrated || login.extension {
        return Err(SqlError::unknown("a login that is not by user and password"));
    }
    if login.user != options.user || login.password != options.password {
        return Err(SqlError::new(18_456, format!("Login failed for user '{}'.", login.user)));
    }
    if !login.database.is_empty() && !login.database.eq_ignore_ascii_case(&options.database) {
        return Err(SqlError::new(
            4060,
            format!("Cannot open database \"{}\" requested by the login. The login failed.", login.database),
        ));
    }
    Ok(login)
}
