//! Who comes in and who does not, and what each is told: certificates, names, versions, and peers that speak no TLS.

mod support;

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use router_common::identity::Identity;
use router_link::{BoxLink, Connector as _, LinkError, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use transport_tls::development::{DevelopmentCa, DevelopmentCertificate, Usage, Wanted};
use transport_tls::{
    CertificatePair, ClientCertificates, ClientTls, IdentityName, MinimumVersion, NamedIdentity, TlsConnector,
    TlsListener, TlsListenerSettings, Versions,
};

use crate::support::{Files, connector, listener};

const ORDERS: &str = "spiffe://acme/orders";

/// What the two ends of one dial come to. Of a service whose handshake was over before it was refused, the error is that
/// of its first reading.
struct Met {
    service: Result<BoxLink, LinkError>,
    gateway: Result<BoxLink, LinkError>,
}

impl Met {
    fn identity(&self) -> Option<String> {
        self.gateway.as_ref().unwrap().peer().identity.as_ref().map(ToString::to_string)
    }

    /// What each end says went wrong.
    async fn problems(self) -> (String, String) {
        let service = match self.service {
            Ok(mut link) => {
                let mut frames = Vec::new();
                poll_fn(|cx| link.poll_recv(cx, &mut frames)).await.expect_err("the gateway closes")
            }
            Err(error) => error,
        };
        (service.to_string(), self.gateway.err().expect("the gateway refuses").to_string())
    }
}

async fn meet(listener: &mut TlsListener, connector: &TlsConnector) -> Met {
    let listener: &mut dyn Listener = listener;
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    Met { service, gateway }
}

async fn dial(settings: &TlsListenerSettings, tls: ClientTls) -> Met {
    let mut listener = listener(settings);
    let connector = connector(&listener, tls);
    meet(&mut listener, &connector).await
}

fn asking(files: &Files, client_certificate: ClientCertificates) -> TlsListenerSettings {
    TlsListenerSettings { client_ca: Some(files.ca()), client_certificate, ..files.gateway() }
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

fn expired(authority: &DevelopmentCa) -> DevelopmentCertificate {
    let valid = Some((ago(7200), ago(3600)));
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    authority.sign(&Wanted { names, uris: vec![ORDERS.into()], valid, usage: Usage::Both }).unwrap()
}

#[tokio::test]
async fn who_shows_no_certificate_comes_in_where_none_is_required() {
    let files = Files::new();
    for wanted in [ClientCertificates::None, ClientCertificates::Optional] {
        let settings = match wanted {
            ClientCertificates::None => files.gateway(),
            wanted => asking(&files, wanted),
        };
        let met = dial(&settings, files.anonymous()).await;
        assert_eq!(met.identity(), None, "{wanted:?}");
        assert!(met.service.is_ok());
    }
    // One that is not asked for is not shown.
    assert_eq!(dial(&files.gateway(), files.service(ORDERS)).await.identity(), None);
}

#[tokio::test]
async fn a_certificate_that_is_required_and_missing_is_told_to_both() {
    let files = Files::new();
    for versions in [Versions::Tls12, Versions::Tls13] {
        let mut listener = listener(&asking(&files, ClientCertificates::Required));
        let connector = connector(&listener, files.anonymous()).with_versions(versions).unwrap();
        let (service, gateway) = meet(&mut listener, &connector).await.problems().await;
        assert!(service.contains("the gateway wants a certificate, and none was shown"), "{service}");
        assert!(gateway.contains("it shows no certificate, and `client_certificate: required`"), "{gateway}");
    }
}

#[tokio::test]
async fn the_holder_of_a_certificate_is_who_its_names_say() {
    let files = Files::new();
    let sign = |names: &[&str], uris: &[&str]| {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        files.authority.sign(&Wanted { names: owned(names), uris: owned(uris), ..Wanted::default() }).unwrap()
    };
    let nameless = sign(&[], &[]);
    let cases = [
        (sign(&["orders.acme"], &[ORDERS, "spiffe://acme/other"]), ORDERS.to_owned()),
        (sign(&["Orders.acme", "other.acme"], &[]), "dns:orders.acme".to_owned()),
        // A URI that would pass for an identity of another kind is none.
        (sign(&["orders.acme"], &["key:team-a"]), "dns:orders.acme".to_owned()),
        (sign(&["orders.acme"], &["TOKEN:team-a", "spiffe://acme/second"]), "spiffe://acme/second".to_owned()),
        (nameless.clone(), nameless.fingerprint.clone()),
    ];
    for wanted in [ClientCertificates::Optional, ClientCertificates::Required] {
        for (certificate, expected) in &cases {
            let met = dial(&asking(&files, wanted), files.holder("service", certificate)).await;
            assert_eq!(met.identity().as_ref(), Some(expected));
        }
    }
}

#[tokio::test]
async fn certificates_of_strangers_and_expired_ones_are_refused_and_both_are_told() {
    let files = Files::new();
    let elsewhere = DevelopmentCa::new().unwrap();
    let stranger = elsewhere.service(ORDERS).unwrap();
    let server = files.authority.sign(&Wanted { usage: Usage::Server, ..Wanted::default() }).unwrap();
    for wanted in [ClientCertificates::Optional, ClientCertificates::Required] {
        for versions in [Versions::Tls12, Versions::Tls13] {
            let settings = asking(&files, wanted);
            let mut listener = listener(&settings);
            let connector = connector(&listener, files.holder("stranger", &stranger)).with_versions(versions).unwrap();
            let (service, gateway) = meet(&mut listener, &connector).await.problems().await;
            assert!(
                service.contains("the gateway does not trust the CA that signed the service's certificate"),
                "{service}"
            );
            assert!(gateway.contains("no CA of `client_ca` has signed it"), "{gateway}");
        }
    }
    // These are found at home already.
    for (certificate, problem) in [(expired(&files.authority), "expired on"), (server, "not made for clients")] {
        let tls = files.holder("bad", &certificate);
        let error = TlsConnector::new("tls://localhost:5101", tls).unwrap_err().to_string();
        assert!(error.contains("bad.pem: the certificate") && error.contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_service_stays_with_its_last_good_certificate() {
    let files = Files::new();
    let tls = files.service(ORDERS);
    let mut listener = listener(&asking(&files, ClientCertificates::Required));
    let connector = connector(&listener, tls);
    // The file has changed for the worse; the connector stays with the last good one.
    files.put("service", &expired(&files.authority));
    let met = meet(&mut listener, &connector).await;
    assert_eq!(met.identity().as_deref(), Some(ORDERS));
}

fn named(name: &str, identity: Option<&str>) -> NamedIdentity {
    NamedIdentity { name: name.parse::<IdentityName>().unwrap(), identity: identity.map(Into::into) }
}

#[tokio::test]
async fn only_listed_names_and_pinned_fingerprints_come_in_where_there_is_a_list() {
    let files = Files::new();
    let pinned = files.authority.service("spiffe://acme/pinned").unwrap();
    let names = vec!["billing.acme".to_owned()];
    let billing = files.authority.sign(&Wanted { names, ..Wanted::default() }).unwrap();
    let other = files.authority.service("spiffe://acme/other").unwrap();
    let mut settings = asking(&files, ClientCertificates::Required);
    settings.identities = vec![
        named(ORDERS, None),
        named("dns:Billing.acme", Some("team-b")),
        named(&pinned.fingerprint, Some("key:team-a")),
    ];
    let allowed = [(files.authority.service(ORDERS).unwrap(), ORDERS), (billing, "team-b"), (pinned, "key:team-a")];
    for (certificate, identity) in allowed {
        let met = dial(&settings, files.holder("service", &certificate)).await;
        assert_eq!(met.identity().as_deref(), Some(identity));
        // Its text may be that of a key; it is still another identity.
        assert!(matches!(met.gateway.unwrap().peer().identity, Some(Identity::Certificate(_))));
    }
    let (service, gateway) = dial(&settings, files.holder("service", &other)).await.problems().await;
    assert!(service.contains("the gateway does not list its names as allowed"), "{service}");
    assert!(gateway.contains("none of its names is among `identities`"), "{gateway}");
}

#[tokio::test]
async fn a_gateway_is_believed_only_with_a_certificate_that_fits() {
    let files = Files::new();
    let sign = |names: &[&str]| files.authority.gateway(names).unwrap();
    let other_ca = DevelopmentCa::new().unwrap();
    let cases: [(DevelopmentCertificate, &str); 2] = [
        (sign(&["gateway.acme", "10.0.0.1"]), "it is not for `127.0.0.1` but for "),
        (other_ca.gateway(&["127.0.0.1"]).unwrap(), "no CA of `ca` has signed it"),
    ];
    for (certificate, problem) in cases {
        files.put("gateway", &certificate);
        let (service, gateway) = dial(&files.gateway(), files.anonymous()).await.problems().await;
        assert!(service.starts_with("tls://127.0.0.1:") && service.contains(problem), "{service}");
        assert!(gateway.contains("the service"), "{gateway}");
    }
    // Under the name that it has it is believed.
    files.put("gateway", &sign(&["gateway.acme"]));
    let tls = ClientTls { server_name: Some("gateway.acme".into()), ..files.anonymous() };
    assert!(dial(&files.gateway(), tls).await.service.is_ok());
}

#[tokio::test]
async fn a_gateways_certificate_that_has_expired_is_refused_with_the_day() {
    let files = Files::new();
    // One second is left, as far as the listener knows; the service looks when it is over.
    let until = SystemTime::now() + Duration::from_millis(1500);
    let names = vec!["127.0.0.1".to_owned()];
    let wanted = Wanted { names, valid: Some((ago(60), until)), usage: Usage::Server, ..Wanted::default() };
    files.put("gateway", &files.authority.sign(&wanted).unwrap());
    let mut listener = listener(&files.gateway());
    let expires = listener.credentials().figures().expires.expect("an end");
    assert!(expires <= until, "{expires:?}");
    let connector = connector(&listener, files.anonymous());
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    let problem = loop {
        turns.tick().await;
        let met = meet(&mut listener, &connector).await;
        if met.service.is_err() {
            break met.problems().await.0;
        }
        // A session that is resumed rests on the certificate of its beginning: begin anew.
        drop(met);
    };
    assert!(problem.contains("its certificate is refused: it expired on "), "{problem}");
}

#[tokio::test]
async fn each_name_that_is_asked_for_gets_its_certificate() {
    let files = Files::new();
    files.put("first", &files.authority.gateway(&["one.acme", "127.0.0.1"]).unwrap());
    files.put("second", &files.authority.gateway(&["two.acme"]).unwrap());
    let mut settings = TlsListenerSettings::new(files.path("first.pem"), files.path("first.key"));
    settings.listen = "127.0.0.1:0".parse().unwrap();
    settings.certificates =
        vec![CertificatePair { certificate: files.path("second.pem"), key: files.path("second.key") }];
    for (name, fits) in [("one.acme", true), ("two.acme", true), ("127.0.0.1", true), ("three.acme", false)] {
        let tls = ClientTls { server_name: Some(name.into()), ..files.anonymous() };
        assert_eq!(dial(&settings, tls).await.service.is_ok(), fits, "{name}");
    }
}

#[tokio::test]
async fn versions_that_are_not_spoken_are_told() {
    let files = Files::new();
    let settings = TlsListenerSettings { minimum_version: MinimumVersion::Tls13, ..files.gateway() };
    let mut listener = listener(&settings);
    let old = connector(&listener, files.anonymous()).with_versions(Versions::Tls12).unwrap();
    let (service, gateway) = meet(&mut listener, &old).await.problems().await;
    assert!(service.contains("speaks no TLS version that is allowed here"), "{service}");
    assert!(gateway.contains("it has no TLS version or cipher that is allowed here"), "{gateway}");
    let new = connector(&listener, files.anonymous()).with_versions(Versions::Tls13).unwrap();
    assert!(meet(&mut listener, &new).await.gateway.is_ok());
}

#[tokio::test]
async fn both_ends_of_a_connection_know_its_binding_and_no_two_have_the_same() {
    let files = Files::new();
    let mut seen = Vec::new();
    for versions in [Versions::Tls12, Versions::Tls13, Versions::Both] {
        let mut listener = listener(&files.gateway());
        let connector = connector(&listener, files.anonymous()).with_versions(versions).unwrap();
        for _ in 0..2 {
            let met = meet(&mut listener, &connector).await;
            let of = |link: &Result<BoxLink, LinkError>| link.as_ref().unwrap().peer().channel_binding.clone().unwrap();
            let binding = of(&met.service);
            assert_eq!((binding.len(), &binding), (32, &of(&met.gateway)), "{versions:?}");
            assert!(!seen.contains(&binding));
            seen.push(binding);
        }
    }
}

/// Dials until a session is resumed: its ticket may come a little later than the handshake's end.
async fn until_resumed(listener: &mut TlsListener, connector: &TlsConnector) -> Met {
    loop {
        let mut met = meet(listener, connector).await;
        if listener.credentials().figures().resumed > 0 {
            return met;
        }
        let link = met.service.as_mut().unwrap();
        let read = poll_fn(|cx| Poll::Ready(link.poll_recv(cx, &mut Vec::new()))).await;
        assert!(read.is_pending(), "nobody sends frames");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sessions_are_resumed_and_their_holders_are_still_known() {
    let files = Files::new();
    for versions in [Versions::Tls12, Versions::Tls13] {
        let mut listener = listener(&asking(&files, ClientCertificates::Required));
        let connector = connector(&listener, files.service(ORDERS)).with_versions(versions).unwrap();
        let met = until_resumed(&mut listener, &connector).await;
        assert_eq!(met.identity().as_deref(), Some(ORDERS));
        let figures = listener.credentials().figures();
        assert_eq!((figures.resumed, figures.failed), (1, 0), "{versions:?}");
    }
}

#[tokio::test]
async fn a_resumed_session_does_not_outlive_the_trust_in_its_certificate() {
    let files = Files::new();
    let mut listener = listener(&asking(&files, ClientCertificates::Required));
    let connector = connector(&listener, files.service(ORDERS));
    until_resumed(&mut listener, &connector).await;
    // The CA of services is another one now.
    files.write("ca.pem", DevelopmentCa::new().unwrap().certificate());
    let credentials = std::sync::Arc::clone(listener.credentials());
    assert!(matches!(credentials.renew(), transport_tls::Renewal::Renewed));
    // The connector would notice too, and begin anew: it keeps what it has only if the new file is of no use to it.
    files.write("ca.pem", "not a certificate");
    let met = meet(&mut listener, &connector).await;
    let gateway = met.gateway.err().expect("refused").to_string();
    assert!(gateway.contains("the certificate of its resumed session is refused: no CA of `client_ca`"), "{gateway}");
}

#[tokio::test]
async fn a_services_certificate_that_has_expired_is_refused_with_the_day() {
    let files = Files::new();
    let valid = Some((ago(60), SystemTime::now() + Duration::from_millis(1500)));
    let wanted = Wanted { uris: vec![ORDERS.into()], valid, usage: Usage::Client, ..Wanted::default() };
    let tls = files.holder("service", &files.authority.sign(&wanted).unwrap());
    let mut listener = listener(&asking(&files, ClientCertificates::Required));
    let connector = connector(&listener, tls);
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    let problem = loop {
        turns.tick().await;
        if let Err(error) = meet(&mut listener, &connector).await.gateway {
            break error.to_string();
        }
    };
    assert!(problem.contains("refused: it expired on "), "{problem}");
}

#[tokio::test]
async fn peers_that_speak_no_tls_are_named_and_do_not_stop_others() {
    let files = Files::new();
    let mut listener = listener(&files.gateway());
    let connector = connector(&listener, files.anonymous());
    let mut oversized = vec![0x16, 3, 1, 0xff, 0xff];
    oversized.extend([0; 300]);
    let cases: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "(an HTTP request)"),
        (b"STELLA/1", "it is to dial `tls://`"),
        (&[0; 64], "it does not speak TLS"),
        (&[0x16, 3, 1, 0, 4, 9, 9, 9, 9], "failed"),
        (&oversized, "failed"),
        (b"", "it said nothing"),
    ];
    for (bytes, told) in cases {
        let mut stream = TcpStream::connect(listener.local_addr()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let accepting: &mut dyn Listener = &mut listener;
        let error = accepting.accept().await.err().expect("refused");
        assert!(matches!(error, LinkError::Handshake { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(told) || told == "failed", "{text}");
        // It is closed, and told nothing of ours but an alert.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.first().is_none_or(|first| *first == 0x15), "{rest:?}");
        assert!(meet(&mut listener, &connector).await.service.is_ok());
    }
}

#[tokio::test]
async fn who_is_slow_keeps_nobody_out_and_has_to_go_in_time() {
    let files = Files::new();
    let mut settings = files.gateway();
    settings.handshake_timeout = "200ms".parse().unwrap();
    let mut listener = listener(&settings);
    let slow = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut half = TcpStream::connect(listener.local_addr()).await.unwrap();
    half.write_all(&[0x16, 3, 1, 0, 200, 1]).await.unwrap();
    let connector = connector(&listener, files.anonymous());
    assert!(meet(&mut listener, &connector).await.service.is_ok());
    for _ in 0..2 {
        let accepting: &mut dyn Listener = &mut listener;
        let error = accepting.accept().await.err().expect("too slow").to_string();
        assert!(error.contains("the TLS handshake took more than 200ms"), "{error}");
    }
    assert_eq!(listener.credentials().figures().timed_out, 2);
    drop((slow, half));
}

#[tokio::test]
async fn the_oldest_handshake_of_whoever_has_the_most_goes_for_one_too_many() {
    let files = Files::new();
    let mut settings = files.gateway();
    settings.max_handshakes = 3.try_into().unwrap();
    let mut listener = listener(&settings);
    let mut hoarded = Vec::new();
    let mut refused = 0;
    for _ in 0..8 {
        hoarded.push(TcpStream::connect(listener.local_addr()).await.unwrap());
    }
    let connector = connector(&listener, files.anonymous());
    let dialling = connector.connect();
    tokio::pin!(dialling);
    let link = loop {
        let accepting: &mut dyn Listener = &mut listener;
        tokio::select! {
            link = &mut dialling => break link,
            accepted = accepting.accept() => if let Err(error) = accepted {
                assert!(error.to_string().contains("too many TLS handshakes at a time"), "{error}");
                refused += 1;
            },
        }
    };
    assert!(link.is_ok(), "{:?}", link.err());
    let evicted = listener.credentials().figures().evicted;
    assert!(evicted >= 5 && refused <= evicted, "{evicted} {refused}");
}
