//! What the suite `files` sets file transfer beside: one stream over stock quinn, with its defaults, from memory to
//! nowhere. No files, no hashes, nothing durable.
//!
//! `quinn-stream serve ADDRESS BYTES CERTIFICATE` writes its certificate into the file and sends so many bytes to the
//! first who asks; `quinn-stream take ADDRESS BYTES CERTIFICATE` is that one.

use anyhow::{Context, bail, ensure};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Endpoint, ServerConfig, VarInt};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, address, bytes, certificate] = &arguments[..] else {
        bail!("quinn-stream serve|take ADDRESS BYTES CERTIFICATE")
    };
    let (address, bytes, certificate) = (address.parse()?, bytes.parse()?, Path::new(certificate));
    // One connection is one task: more threads only pass it about, at three times the cost.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match way.as_str() {
        "serve" => runtime.block_on(serve(address, bytes, certificate)),
        "take" => runtime.block_on(take(address, bytes, certificate)),
        other => bail!("there is no way `{other}`"),
    }
}

async fn serve(address: SocketAddr, bytes: u64, file: &Path) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let endpoint = Endpoint::server(config, address)?;
    let whole = file.with_extension("part");
    std::fs::write(&whole, made.cert.der())?;
    std::fs::rename(&whole, file)?;
    let connection = endpoint.accept().await.context("the endpoint is open")?.await?;
    let mut stream = connection.accept_bi().await?.0;
    let block = vec![7; 1 << 20];
    let mut rest = bytes;
    while rest > 0 {
        let part = usize::try_from(rest)?.min(block.len());
        stream.write_all(&block[..part]).await?;
        rest -= part as u64;
    }
    stream.finish()?;
    connection.closed().await;
    Ok(())
}

async fn take(address: SocketAddr, bytes: u64, file: &Path) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(file)?))?;
    let config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let connection = endpoint.connect_with(config, address, NAME)?.await?;
    let (mut ask, mut stream) = connection.open_bi().await?;
    ask.write_all(b"go").await?;
    let mut came = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        came += chunk.bytes.len() as u64;
    }
    ensure!(came == bytes, "{came} bytes came, not {bytes}");
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    Ok(())
}

const NAME: &str = "bench.example";
