//! `/metrics`, `/healthz` and `/readyz` of the guard: a few lines of HTTP/1.0, because a server of
//! a library would be larger than the tool.
//!
//! All that comes from outside is bounded: how long a request may be and may take, and how many
//! there may be at once.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::blocking::{Guard, ModuleWriter};

use crate::failure::Failure;

/// How long a request may take, from its first byte to the last of its answer.
const LIMIT: Duration = Duration::from_secs(2);

/// How many bytes of a request are read. Only its first line counts.
const MOST_BYTES: usize = 8 * 1024;

/// How many requests are answered at the same time.
const MOST: usize = 64;

/// For how long the guard's loop may be at one thing: longer than any server may take to answer.
const HUNG: Duration = Duration::from_secs(60);

/// What is told of.
struct Told {
    guard: Guard,
    writer: ModuleWriter,
    under_way: AtomicUsize,
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

/// Answers in threads of its own, for as long as the process lives.
/// Returns where: a port of 0 is any free one.
pub fn serve(
    address: SocketAddr,
    guard: Guard,
    writer: ModuleWriter,
) -> Result<SocketAddr, Failure> {
    let failed = |error| Failure::refused(format!("can't listen on {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let told = Arc::new(Told {
        guard,
        writer,
        under_way: AtomicUsize::new(0),
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of file descriptors, most likely: trying at once would spin.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            if told.under_way.fetch_add(1, SeqCst) >= MOST {
                told.under_way.fetch_sub(1, SeqCst);
                continue;
            }
            let theirs = Arc::clone(&told);
            let answer = move || {
                // The peer has gone, or was too slow: there is nobody to tell.
                let _ = talk(stream, &theirs);
                theirs.under_way.fetch_sub(1, SeqCst);
            };
            if thread::Builder::new().spawn(answer).is_err() {
                told.under_way.fetch_sub(1, SeqCst);
            }
        }
    });
    Ok(bound)
}

fn talk(mut stream: TcpStream, told: &Told) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no limit.
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        Ok(left)
    };
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    // To the end of the head, so that closing the connection does not reset it with bytes unread.
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.set_read_timeout(Some(left()?))?;
        let read = stream.read(&mut piece)?;
        request.extend_from_slice(&piece[..read]);
        if read == 0 || request.len() > MOST_BYTES {
            break;
        }
    }
    let (answer, has_body) = answer(&request, told);
    let mut text = format!(
        "HTTP/1.0 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    if has_body {
        text.push_str(&answer.body);
    }
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(text.as_bytes())
}

/// Answers a request, and whether its method wants a body.
fn answer(request: &[u8], told: &Told) -> (Answer, bool) {
    let Some((method, path)) = parsed(request) else {
        return (text("400 Bad Request", "not a request of HTTP"), true);
    };
    if method != "GET" && method != "HEAD" {
        return (text("405 Method Not Allowed", "only GET and HEAD"), true);
    }
    (page(path, told), method == "GET")
}

/// The method and the path of a request, without its query.
fn parsed(request: &[u8]) -> Option<(&str, &str)> {
    let line = request.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_http = version.starts_with("HTTP/1.") && words.next().is_none();
    is_http.then(|| (method, target.split('?').next().unwrap_or_default()))
}

fn page(path: &str, told: &Told) -> Answer {
    let stats = told.guard.stats();
    match path {
        "/metrics" => {
            let mut body = String::new();
            let written = stats.write_prometheus(&mut body, &[]);
            match written.and_then(|()| told.writer.stats().write_prometheus(&mut body, &[])) {
                Ok(()) => Answer {
                    status: "200 OK",
                    kind: "text/plain; version=0.0.4; charset=utf-8",
                    body,
                },
                Err(_) => text("500 Internal Server Error", "the figures can't be written"),
            }
        }
        "/healthz" => match stats.active.elapsed() {
            Ok(silence) if stats.running && silence > HUNG => {
                text("503 Service Unavailable", "it hangs")
            }
            // Also before it runs, and where the clock was set back.
            _ => text("200 OK", "alive"),
        },
        "/readyz" if stats.since.is_some() => text("200 OK", "it guards"),
        "/readyz" => {
            let why = match (stats.redis_up, stats.database_up) {
                (true, true) => "it compares everything",
                (false, true) => "it does not follow Redis",
                (true, false) => "it has no database",
                (false, false) => "it has neither Redis nor a database",
            };
            text("503 Service Unavailable", why)
        }
        _ => text("404 Not Found", "there are /metrics, /healthz and /readyz"),
    }
}

fn text(status: &'static str, body: &str) -> Answer {
    Answer {
        status,
        kind: "text/plain; charset=utf-8",
        body: format!("{body}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_first_line() {
        let parse = |text: &'static str| parsed(text.as_bytes());
        assert_eq!(
            parse("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n"),
            Some(("GET", "/metrics"))
        );
        assert_eq!(parse("HEAD / HTTP/1.0\r\n"), Some(("HEAD", "/")));
        for bad in [
            "",
            "GET",
            "GET /",
            "GET / x HTTP/1.1",
            "GET / HTTP/2",
            "\u{fffd}",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parsed(b"GET /\xff HTTP/1.1\r\n"), None);
    }
}
