//! A gateway that serves one file of noise, `/x`, from memory, to measure what SSH and SFTP cost:
//!
//!     sftp-serve --port 2222 --authorized ~/.ssh/id_ed25519.pub --mebibytes 1024

use clap::Parser;
use sftp_gateway::keys::{HostKeys, PublicKey};
use sftp_gateway::testing::{MemoryFile, MemoryFs};
use sftp_gateway::{Account, Accounts, Event, Gateway, GatewayConfig, LogIn, LookUp, Observer, Refusal};
use std::error::Error;
use std::sync::Arc;

/// Serves one file from memory over SFTP, on the loopback, for measurements.
#[derive(Parser)]
struct Arguments {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// File with the public key that may log in, under any name.
    #[arg(long)]
    authorized: std::path::PathBuf,
    /// Size of the file.
    #[arg(long, default_value_t = 1024)]
    mebibytes: usize,
}

struct One {
    key: PublicKey,
    fs: Arc<MemoryFs>,
}

impl Accounts for One {
    fn look_up(&self, log_in: LogIn) -> LookUp {
        let account = Account { name: log_in.user.clone(), key: String::new(), fs: self.fs.clone() };
        let answer = if log_in.key == self.key { Ok(account) } else { Err(Refusal::Unknown) };
        Box::pin(std::future::ready(answer))
    }
}

struct Printed;

impl Observer for Printed {
    fn event(&self, event: &Event) {
        println!("{event:?}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let key = PublicKey::parse(&std::fs::read_to_string(&arguments.authorized)?)?;
    let mut state = 1u64;
    let mut noise = Vec::with_capacity(arguments.mebibytes << 20);
    while noise.len() < arguments.mebibytes << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&state.to_be_bytes());
    }
    let fs = Arc::new(MemoryFs::new());
    fs.put("/x", MemoryFile::new(noise, 1_774_448_940));
    let gateway =
        Gateway::new(GatewayConfig::new(HostKeys::generate()?), Arc::new(One { key, fs }), Arc::new(Printed))?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    println!("listening");
    gateway.serve(listener).await;
    Ok(())
}
