//! Certificates that change while connections live on: what is put to use, what is not, and how it is found.

mod support;

use std::sync::Arc;
use std::time::Duration;

use router_link::{BoxLink, Connector as _, LinkError, Listener};
use transport_tls::development::{DevelopmentCa, Wanted};
use transport_tls::{CertificateProblem, ClientCertificates, ClientTls, Credentials, Renewal, TlsListener};

use crate::support::{Files, connector, listener};

async fn meet(listener: &mut TlsListener, tls: ClientTls) -> (Result<BoxLink, LinkError>, Result<BoxLink, LinkError>) {
    let connector = connector(listener, tls);
    let listener: &mut dyn Listener = listener;
    tokio::join!(connector.connect(), listener.accept())
}

/// Whether the gateway shows a certificate that is for this name.
async fn shows(listener: &mut TlsListener, files: &Files, name: &str) -> bool {
    let tls = ClientTls { server_name: Some(name.into()), ..files.anonymous() };
    meet(listener, tls).await.0.is_ok()
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_those_who_come_next() {
    let files = Files::new();
    let mut listener = listener(&files.gateway());
    let credentials = Arc::clone(listener.credentials());
    assert!(matches!(credentials.renew(), Renewal::Unchanged));
    assert!(shows(&mut listener, &files, "localhost").await);
    files.put("gateway", &files.authority.gateway(&["new.acme"]).unwrap());
    assert!(shows(&mut listener, &files, "localhost").await, "nobody has looked yet");
    assert!(matches!(credentials.renew(), Renewal::Renewed));
    assert!(shows(&mut listener, &files, "new.acme").await);
    assert!(!shows(&mut listener, &files, "localhost").await);
    assert_eq!(credentials.figures().renewed, 1);
}

#[tokio::test]
async fn what_cannot_be_used_is_found_before_it_is_and_the_last_good_stays() {
    let files = Files::new();
    let settings = support_asking(&files);
    let mut listener = listener(&settings);
    let credentials = Arc::clone(listener.credentials());
    let good = files.authority.gateway(&["localhost", "127.0.0.1"]).unwrap();
    let another = files.authority.gateway(&["localhost"]).unwrap();
    let client = files.authority.service("spiffe://acme/orders").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    let valid = Some((long_ago - Duration::from_secs(60), long_ago));
    let expired =
        files.authority.sign(&Wanted { names: vec!["localhost".into()], valid, ..Wanted::default() }).unwrap();
    let tomorrow = std::time::SystemTime::now() + Duration::from_secs(86_400);
    let valid = Some((tomorrow, tomorrow + Duration::from_secs(60)));
    let early = files.authority.sign(&Wanted { names: vec!["localhost".into()], valid, ..Wanted::default() }).unwrap();
    let ca = files.authority.certificate();
    let half = good.certificate.get(..good.certificate.len() / 2).unwrap();

    type Expected = fn(&CertificateProblem) -> bool;
    let cases: [(&str, &str, &str, Expected); 10] = [
        (&good.certificate, &another.key, ca, |p| matches!(p, CertificateProblem::KeyMismatch { .. })),
        (&expired.certificate, &expired.key, ca, |p| matches!(p, CertificateProblem::Expired { .. })),
        (&early.certificate, &early.key, ca, |p| matches!(p, CertificateProblem::NotYetValid { .. })),
        (&client.certificate, &client.key, ca, |p| matches!(p, CertificateProblem::Usage { .. })),
        (ca, files.authority.key(), ca, |p| matches!(p, CertificateProblem::IsCa { .. })),
        (half, &good.key, ca, |p| matches!(p, CertificateProblem::Pem { .. })),
        ("", &good.key, ca, |p| matches!(p, CertificateProblem::NoCertificate { .. })),
        (&good.key, &good.key, ca, |p| matches!(p, CertificateProblem::NoCertificate { .. })),
        (&good.certificate, "", ca, |p| matches!(p, CertificateProblem::NoKey { .. })),
        (&good.certificate, &good.key, "", |p| matches!(p, CertificateProblem::NoCertificate { .. })),
    ];
    let mut refused = 0;
    for (certificate, key, ca, expected) in cases {
        files.write("gateway.pem", certificate);
        files.write("gateway.key", key);
        files.write("ca-of-services.pem", ca);
        match credentials.renew() {
            Renewal::Refused(problem) => {
                assert!(expected(&problem), "{problem}");
                let text = problem.to_string();
                assert!(text.contains("gateway.") || text.contains("ca-of-services.pem"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        refused += 1;
        let figures = credentials.figures();
        assert_eq!((figures.renewed, figures.refused), (0, refused));
        let (service, gateway) = meet(&mut listener, files.service("spiffe://acme/orders")).await;
        assert!(service.is_ok() && gateway.is_ok());
    }
    std::fs::remove_file(files.path("gateway.key")).unwrap();
    assert!(matches!(credentials.renew(), Renewal::Refused(problem) if problem.is_of_this_machine()));
    assert!(meet(&mut listener, files.service("spiffe://acme/orders")).await.0.is_ok());
    // A listener does not begin with what another would not go on with.
    assert!(Credentials::load(&settings).unwrap_err().to_string().contains("gateway.key: cannot be read"));
}

fn support_asking(files: &Files) -> transport_tls::TlsListenerSettings {
    transport_tls::TlsListenerSettings {
        client_ca: Some(files.write("ca-of-services.pem", files.authority.certificate())),
        client_certificate: ClientCertificates::Required,
        ..files.gateway()
    }
}

#[tokio::test]
async fn changes_are_found_by_themselves_those_of_links_too() {
    let files = Files::new();
    let (first, second) = (files.path("1"), files.path("2"));
    for (folder, name) in [(&first, "one.acme"), (&second, "two.acme")] {
        std::fs::create_dir(folder).unwrap();
        let certificate = files.authority.gateway(&[name]).unwrap();
        std::fs::write(folder.join("tls.pem"), &certificate.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &certificate.key).unwrap();
    }
    // As a mounted secret is: a link to a folder that is exchanged.
    let current = files.path("current");
    std::os::unix::fs::symlink(&first, &current).unwrap();
    let mut settings = transport_tls::TlsListenerSettings::new(current.join("tls.pem"), current.join("tls.key"));
    settings.listen = "127.0.0.1:0".parse().unwrap();
    settings.reload_interval = "10ms".parse().unwrap();
    let mut listener = listener(&settings);
    assert!(shows(&mut listener, &files, "one.acme").await);
    let next = files.path("next");
    std::os::unix::fs::symlink(&second, &next).unwrap();
    std::fs::rename(&next, &current).unwrap();
    while !shows(&mut listener, &files, "two.acme").await {}
    assert_eq!(listener.credentials().figures().renewed, 1);
}

#[tokio::test]
async fn links_live_on_when_certificates_change() {
    let files = Files::new();
    let mut settings = support_asking(&files);
    settings.client_certificate = ClientCertificates::Optional;
    let mut listener = listener(&settings);
    let (service, gateway) = meet(&mut listener, files.service("spiffe://acme/orders")).await;
    let (mut service, mut gateway) = (service.unwrap(), gateway.unwrap());
    let elsewhere = DevelopmentCa::new().unwrap();
    files.put("gateway", &elsewhere.gateway(&["127.0.0.1"]).unwrap());
    files.write("ca-of-services.pem", elsewhere.certificate());
    assert!(matches!(listener.credentials().renew(), Renewal::Renewed));
    assert!(meet(&mut listener, files.anonymous()).await.0.is_err(), "signed by a CA that this one does not know");

    let closed = std::future::poll_fn(|cx| service.poll_close(cx));
    let mut frames = Vec::new();
    let read = std::future::poll_fn(|cx| gateway.poll_recv(cx, &mut frames));
    let ((), read) = tokio::join!(closed, read);
    assert!(matches!(read, Err(LinkError::Closed)), "in good order, and not before: {read:?}");
}

#[tokio::test]
async fn a_service_reads_its_files_anew_when_it_dials() {
    let files = Files::new();
    let mut listener = listener(&support_asking(&files));
    let connector = connector(&listener, files.service("spiffe://acme/first"));
    for uri in ["spiffe://acme/first", "spiffe://acme/second", "spiffe://acme/third"] {
        files.service(uri);
        let accepting: &mut dyn Listener = &mut listener;
        let (service, gateway) = tokio::join!(connector.connect(), accepting.accept());
        assert!(service.is_ok());
        assert_eq!(gateway.unwrap().peer().identity.as_ref().map(ToString::to_string).as_deref(), Some(uri));
    }
}

#[test]
fn what_a_service_is_told_is_checked_before_it_dials() {
    let files = Files::new();
    let good = files.service("spiffe://acme/orders");
    let other = files.authority.service("spiffe://acme/other").unwrap();
    files.write("other.key", &other.key);
    let missing = Some(files.path("missing.pem"));
    let cases = [
        (ClientTls { ca: None, ..good.clone() }, "name the CA"),
        (ClientTls { ca: missing.clone(), ..good.clone() }, "missing.pem: cannot be read: "),
        (ClientTls { ca: Some(files.path("service.key")), ..good.clone() }, "service.key: no certificate stands in it"),
        (ClientTls { key: None, ..good.clone() }, "name both"),
        (ClientTls { certificate: None, ..good.clone() }, "name both"),
        (ClientTls { certificate: missing, ..good.clone() }, "missing.pem: cannot be read: "),
        (
            ClientTls { key: Some(files.path("other.key")), ..good.clone() },
            "other.key: the key is not that of the certificate",
        ),
        (ClientTls { server_name: Some("a b".into()), ..good.clone() }, "`a b` is not a name"),
    ];
    for (tls, problem) in cases {
        let error = transport_tls::TlsConnector::new("tls://gateway.acme:5101", tls).unwrap_err().to_string();
        assert!(error.starts_with("`tls://gateway.acme:5101`: ") && error.contains(problem), "{error}");
    }
    assert!(good.check().is_ok());
    for url in ["tcp://a:1", "tls://a", "tls://a:0", "a:5101"] {
        assert!(transport_tls::TlsConnector::new(url, good.clone()).is_err(), "{url}");
    }
    for url in ["tls://[::1]:5101", "tls://127.0.0.1:5101/"] {
        assert!(transport_tls::TlsConnector::new(url, good.clone()).is_ok(), "{url}");
    }
}
