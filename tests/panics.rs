//! What a panic in a dataflow does. In a closure on rows it is quarantined. In raw differential code it cannot be: timely's
//! workers wait for ever for one that is gone, and without care a panic in the speed layer would leave a process that
//! answers with old rows and never ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::log::{Log, LogOptions, SystemClock};
use lambdaflow::prelude::*;
use lambdaflow::runs::Query;
use lambdaflow::runtime::service::{Format, Service};
use lambdaflow::runtime::{OnError, Server, ServerOptions};
use lambdaflow::serving::Read;
use lambdaflow::storage::RealDisk;

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Word {
    text: String,
}
impl Event for Word {
    const NAME: &'static str = "tests.Word";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["text: String"];
}

/// Counts words. Raw code panics at the word "poison", and at any while `armed`; a closure at the word "odd".
fn server(dir: &std::path::Path, armed: &Arc<AtomicBool>) -> Server<Word> {
    let armed = Arc::clone(armed);
    let words = move |events: Events<'_, Word>, views: &mut Views| {
        let armed = Arc::clone(&armed);
        let words = events.map(|word| String::from_utf8_lossy(word.text).into_owned()).linear(|words| {
            words.inspect(move |(word, _, _)| {
                assert!(word != "poison" && !armed.load(Ordering::SeqCst), "this word cannot be counted");
            })
        });
        let even = words.map(|word| {
            assert!(word != "odd", "an odd word");
            (word, ())
        });
        views.publish("words", even.aggregate::<Count>(|()| Count::one()));
    };
    let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock), dir, LogOptions::default()).expect("a log");
    let options = ServerOptions { workers: 2, batch_interval: None, ..ServerOptions::default() };
    Server::start(Program::new("words", words), log, options).expect("it starts")
}

fn append(service: &dyn Service, text: &str) -> Tick {
    let line = format!("{{\"text\":\"{text}\"}}\n");
    service.append(line.as_bytes(), Format::Json, OnError::Stop).expect("it is taken").token.expect("it is an event")
}

fn count(service: &dyn Service, text: &str, at_least: Tick) -> serde_json::Value {
    let read = Read { at_least: Some(at_least), ..Read::latest("words", Query::Get(vec![text.into()])) };
    service.read(&read).expect("it answers").rows[0].value.clone()
}

#[test]
fn a_panic_in_the_speed_layer_is_fatal_and_does_not_hang() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = server(&dir.path().join("log"), &Arc::default());
    let service = server.service();
    let token = append(&*service, "good");
    assert_eq!(count(&*service, "good", token), 1);
    append(&*service, "poison");

    let deadline = Instant::now() + Duration::from_secs(30);
    let (message, code) = loop {
        if let Some(fatal) = server.fatal() {
            break fatal;
        }
        assert!(Instant::now() < deadline, "nobody noticed the panic");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(message.contains("panicked: this word cannot be counted"), "{message}");
    assert_eq!(code, 101);
    assert!(service.cycle(lambdaflow::layers::Cycle::Full).is_err(), "the batch layer meets the same event");
    drop(service);
    server.close().expect("the log is unharmed");
}

#[test]
fn a_panic_in_the_batch_layer_is_reported_and_serving_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let armed = Arc::new(AtomicBool::new(false));
    let server = server(&dir.path().join("log"), &armed);
    let service = server.service();
    let token = append(&*service, "good");
    assert_eq!(count(&*service, "good", token), 1);

    armed.store(true, Ordering::SeqCst);
    let error = service.cycle(lambdaflow::layers::Cycle::Incremental).expect_err("the batch panics").to_string();
    assert!(error.contains("batch worker") && error.contains("cannot be counted"), "{error}");
    armed.store(false, Ordering::SeqCst);

    let token = append(&*service, "good");
    assert_eq!(count(&*service, "good", token), 2, "the old generation still serves");
    let handover = service.cycle(lambdaflow::layers::Cycle::Incremental).expect("the next cycle succeeds");
    assert_eq!(handover.agreed, Some(true));
    assert_eq!(count(&*service, "good", token), 2);
    assert_eq!(server.fatal(), None);
}

/// The view `errors` alone is no answer to anything.
#[test]
fn a_dataflow_without_views_is_refused() {
    let without: [fn(Events<'_, Word>, &mut Views); 2] = [|_, _| (), |words, _| drop(words.map(|word| word.text.len() as u64))];
    for dataflow in without {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path().join("log"), LogOptions::default()).expect("a log");
        let Err(error) = Server::start(Program::new("none", dataflow), log, ServerOptions::default()) else { panic!("it starts") };
        assert!(error.to_string().contains("publishes no view"), "{error}");
    }
}

#[test]
fn a_panic_in_a_closure_is_quarantined_in_both_layers_and_both_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = server(&dir.path().join("log"), &Arc::default());
    let service = server.service();
    let errors = |at_least| {
        let read = Read { at_least: Some(at_least), ..Read::latest("errors", Query::Scan { limit: 9 }) };
        let rows = service.read(&read).expect("it answers").rows;
        rows.into_iter().map(|row| (row.key, row.value["operator"].clone(), row.count)).collect::<Vec<_>>()
    };
    append(&*service, "odd");
    let token = append(&*service, "good");
    assert_eq!(count(&*service, "good", token), 1);
    let odd = |times| vec![("an odd word".into(), "map 2".into(), times)];
    assert_eq!(errors(token), odd(1));

    let handover = service.cycle(lambdaflow::layers::Cycle::Full).expect("the batch layer goes on");
    assert_eq!(handover.agreed, Some(true));
    assert_eq!(errors(token), odd(1));
    append(&*service, "odd");
    let token = append(&*service, "good");
    assert_eq!(count(&*service, "good", token), 2);
    assert_eq!(errors(token), odd(2));
    assert_eq!(server.fatal(), None);
}
