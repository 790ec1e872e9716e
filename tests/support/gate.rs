//! A TCP relay that does something just before a certain request.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A relay before a Redis on 127.0.0.1. Each time a client has sent something that contains the
/// needle, the hook is called, and only then the server gets it. It ends with the process.
pub struct Gate {
    port: u16,
}

impl Gate {
    pub fn start(
        target: u16,
        needle: &'static str,
        hook: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let hook = Arc::new(hook);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (requests, replies) = (client.try_clone().unwrap(), client);
                let (to, from) = (server.try_clone().unwrap(), server);
                let hook = Arc::clone(&hook);
                thread::spawn(move || {
                    relay(requests, to, |bytes| {
                        if contains(bytes, needle.as_bytes()) {
                            hook();
                        }
                    });
                });
                thread::spawn(move || relay(from, replies, |_| {}));
            }
        });
        Self { port }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, look: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        look(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other side may have gone already.
    let _ = to.shutdown(Shutdown::Write);
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
