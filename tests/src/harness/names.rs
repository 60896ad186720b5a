//! Name server with programmed answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Name server (RFC 1035, section 4) on port 53. Its answers have a TTL of 0 seconds, so no resolver caches
/// them.
pub struct Names {
    server: JoinHandle<()>,
    asked: Arc<AtomicUsize>,
}

/// Record type of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// Length of the header before the question, in bytes.
const HEAD: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;

impl Names {
    /// Starts a name server on an address. `answer` gets the name and the record type. If it returns `None`,
    /// the server stays silent.
    pub async fn start(
        address: IpAddr,
        mut answer: impl FnMut(&str, Sort) -> Option<Vec<IpAddr>> + Send + 'static,
    ) -> std::io::Result<Self> {
        let socket = UdpSocket::bind((address, 53)).await?;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(reply) = reply(&query[..length], &mut answer) {
                    // A resolver that gets no answer asks again.
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Ok(Self { server, asked })
    }

    /// Returns the number of questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn reply(query: &[u8], answer: &mut impl FnMut(&str, Sort) -> Option<Vec<IpAddr>>) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let question = query.get(HEAD..end + 4)?;
    let asked = u16::from_be_bytes([query[end], query[end + 1]]);
    let sort = match asked {
        A => Some(Sort::A),
        AAAA => Some(Sort::Aaaa),
        _ => None,
    };
    let addresses = match sort {
        Some(sort) => answer(&name, sort)?,
        None => Vec::new(),
    };
    let count = u8::try_from(addresses.len()).ok()?;
    // The query's id; flags of an answer with recursion desired and available; one question, and the number
    // of answers.
    let mut reply = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
    reply.extend_from_slice(question);
    for address in addresses {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let [high, low] = asked.to_be_bytes();
        // A pointer to the question's name, the record type, class IN, a TTL of 0 seconds, and the length of
        // the address.
        reply.extend([0xc0, 12, high, low, 0, 1, 0, 0, 0, 0, 0, u8::try_from(bytes.len()).ok()?]);
        reply.extend(bytes);
    }
    Some(reply)
}

/// Returns the name in the question, and the offset after it.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEAD);
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
}
