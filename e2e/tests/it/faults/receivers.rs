//! What lies between a dispatcher and a receiver fails, or what the receiver says is no text.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dispatcher::ledger::Ledger;
use dispatcher_core::table::TableChange;
use e2e::distributed::{Answer, Distributed, Load, Process, Producer, Recovery, Role, Routes, Row, until};
use hyper::StatusCode;
use tokio::net::UdpSocket;
use tokio::process::Command;

use super::support::{Bed, IN_FLIGHT, bounds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_body_holds_a_nul_and_a_lone_surrogate() {
    /// A NUL, which no text column takes; a surrogate, as JSON escapes it and as UTF-8 must not.
    const BODY: &[u8] = b"{\"error\":\"\0 \\ud800 \xed\xa0\x80\"}";
    let Some(bed) = Bed::shared().await else { return };
    let system = &bed.system;
    let bounds = bounds(0, Recovery::AtOnce);
    let mut row = Row::begin("a_response_body_holds_a_nul_and_a_lone_surrogate", system, bounds).unwrap();
    let (ingest, _deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    let answer = |status| Answer { body: Bytes::from_static(BODY), ..Answer::status(status) };
    system.receiver.answers(answer(StatusCode::INTERNAL_SERVER_ERROR));
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    system.receiver.until("many are refused", |arrivals| arrivals.refused > 100).await.unwrap();
    system.receiver.answers(answer(StatusCode::OK));
    row.recovers(&producer.acknowledged()).await.unwrap();
    let published = producer.stop().await.unwrap();
    until("every attempt is kept with the very bytes", async || {
        let answers = system.receiver.arrivals();
        let kept = "SELECT (SELECT count(*) FROM attempts WHERE excerpt = $1)
                         + (SELECT count(*) FROM deliveries WHERE first_excerpt = $1)";
        let kept: i64 = sqlx::query_scalar(kept).bind(BODY).fetch_one(row.pool()).await?;
        let answered = answers.refused + answers.taken.values().sum::<usize>();
        Ok(usize::try_from(kept)? == answered
            && answers.taken.len() == published.acknowledged.len() * system.routes.fanout())
    })
    .await
    .unwrap();
    row.conclude(&published).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_deleted_while_deliveries_are_in_flight() {
    let few = |routes| Routes { max_in_flight: 8, ..routes };
    let Some(bed) = Bed::with_routes(few).await else { return };
    let system = &bed.system;
    let bounds = bounds(0, Recovery::AtOnce);
    let row = Row::begin("an_endpoint_is_deleted_while_deliveries_are_in_flight", system, bounds).unwrap();
    let (ingest, _deliver) = (system.ingest().await.unwrap(), system.deliver().await.unwrap());
    // Longer than the soft budget: these are on the slow track when the endpoint goes.
    system.receiver.answers(Answer::late(Duration::from_secs(3)));
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    system.receiver.until("some are in flight", |arrivals| arrivals.begun >= 16).await.unwrap();
    producer.further_acknowledged(100).await.unwrap();
    let published = producer.stop().await.unwrap();
    let dropped = TableChange { put: Vec::new(), drop: system.routes.keys() };
    system.ledger.publish_table(dropped, None).await.unwrap();
    // Whatever waits is held until its grace is over; here it is over at once.
    until("nothing is open", async || {
        system.ledger.cancel_orphans(Duration::ZERO, 1000).await?;
        Ok(row.balance().await?.open == 0)
    })
    .await
    .unwrap();
    let (begun, taken) = system.receiver.look(|arrivals| (arrivals.begun, arrivals.taken.len()));
    let all = published.acknowledged.len() * system.routes.fanout();
    assert_eq!(begun, taken, "what was in flight was answered, and counts");
    assert!(taken >= 16 && taken < all, "{taken} of {all} were delivered");
    assert_eq!(usize::try_from(row.balance().await.unwrap().delivered).unwrap(), taken);
    row.conclude_with(&published, all - taken).await.unwrap();
}

/// A name server for one process, on a loopback address of its own.
struct NameServer {
    address: Ipv4Addr,
    mood: Arc<AtomicU8>,
}

/// What it does with a question.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Mood {
    Answers,
    IsSilent,
    Flaps,
}

impl NameServer {
    async fn start() -> Self {
        let (address, socket) = loop {
            let address = Ipv4Addr::new(127, rand::random(), rand::random(), 53);
            if let Ok(socket) = UdpSocket::bind((address, 53)).await {
                break (address, socket);
            }
        };
        let mood = Arc::new(AtomicU8::new(Mood::Answers as u8));
        tokio::spawn(answer_questions(socket, Arc::clone(&mood)));
        Self { address, mood }
    }

    fn becomes(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// A dispatcher that asks this name server and no other: with a mount namespace of its own.
    async fn deliver(&self, system: &Distributed) -> Process {
        let configuration = system.folder().join("resolv.conf");
        let lines = format!("nameserver {}\noptions timeout:1 attempts:1\n", self.address);
        std::fs::write(&configuration, lines).unwrap();
        let dispatcher = system.command(Role::Deliver, system.database_url(), system.queue_url()).unwrap();
        let dispatcher = dispatcher.as_std();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", "mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"", "sh"]);
        command.arg(&configuration).arg(dispatcher.get_program()).args(dispatcher.get_args());
        system.start_command(command, Role::Deliver).await.unwrap()
    }
}

/// RFC 1035, 4: the header with flags and one answer, the question as it came, and for a question of type A an address.
async fn answer_questions(socket: UdpSocket, mood: Arc<AtomicU8>) {
    let mut question = [0; 512];
    let mut number = 0_u64;
    while let Ok((length, asker)) = socket.recv_from(&mut question).await {
        number += 1;
        let mood = mood.load(Ordering::Relaxed);
        // Two together: a name is asked for once for each kind of address.
        let flaps = mood == Mood::Flaps as u8 && number % 4 < 2;
        if mood == Mood::IsSilent as u8 || flaps {
            continue;
        }
        let answer = answer_to(&question[..length]);
        // The asker may have given up.
        let _ = socket.send_to(&answer, asker).await;
    }
}

fn answer_to(question: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 12;
    const TYPE_A: [u8; 2] = [0, 1];
    // The name ends with an empty label; type and class follow.
    let name_bytes = question[HEADER_BYTES..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let kind = &question[HEADER_BYTES + name_bytes..][..2];
    let asked = &question[HEADER_BYTES..HEADER_BYTES + name_bytes + 4];
    let answers = u8::from(kind == TYPE_A);
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(asked);
    if kind == TYPE_A {
        // The name of the question; type A, class IN, no time to live, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_resolution_is_down_and_flaps() {
    if !rustix::process::geteuid().is_root() {
        writeln!(std::io::stderr(), "SKIPPED: a resolver of its own for a process needs root").unwrap();
        return;
    }
    let named = |routes: Routes| {
        let port = routes.url.rsplit_once(':').unwrap().1;
        Routes { url: format!("http://hooks.example.com:{port}"), max_in_flight: 16, ..routes }
    };
    let Some(bed) = Bed::with_routes(named).await else { return };
    let system = &bed.system;
    let bounds = bounds(IN_FLIGHT, Recovery::AfterLease);
    let mut row = Row::begin("name_resolution_is_down_and_flaps", system, bounds).unwrap();
    let name_server = NameServer::start().await;
    name_server.becomes(Mood::IsSilent);
    let (ingest, _deliver) = (system.ingest().await.unwrap(), name_server.deliver(system).await);
    let producer = Producer::start(&[ingest.api()], Load::STEADY);
    until("attempts fail for want of a name", async || {
        let failed = "SELECT count(*) FROM attempts WHERE outcome = 'dns_error'";
        Ok(sqlx::query_scalar::<_, i64>(failed).fetch_one(row.pool()).await? > 20)
    })
    .await
    .unwrap();
    assert_eq!(system.receiver.taken(), 0, "a name was resolved without its server");
    name_server.becomes(Mood::Flaps);
    producer.further_acknowledged(100).await.unwrap();
    let published = producer.stop().await.unwrap();
    name_server.becomes(Mood::Answers);
    row.recovers(&published.acknowledged).await.unwrap();
    row.conclude(&published).await.unwrap();
}
