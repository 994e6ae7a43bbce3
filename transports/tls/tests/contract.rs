//! The contract of every transport, over TLS on loopback: 1.3, 1.2, and with certificates at both ends.

mod support;

use router_link::testing::Ends;
use router_link::{Connector, Listener};
use transport_tls::{ClientCertificates, Versions};

use crate::support::{Files, connector, listener};

async fn ends_with(versions: Versions, client_certificate: ClientCertificates) -> Ends {
    let files = Files::new();
    let mut settings = files.gateway();
    settings.client_certificate = client_certificate;
    if client_certificate != ClientCertificates::None {
        settings.client_ca = Some(files.ca());
    }
    let mut listener = listener(&settings);
    let tls = match client_certificate {
        ClientCertificates::None => files.anonymous(),
        _ => files.service("spiffe://acme/orders"),
    };
    let connector = connector(&listener, tls).with_versions(versions).expect("versions");
    let listener: &mut dyn Listener = &mut listener;
    let (service, gateway) = tokio::join!(connector.connect(), listener.accept());
    Ends { service: service.expect("connected"), gateway: gateway.expect("accepted") }
}

mod tls_1_3 {
    async fn ends() -> super::Ends {
        super::ends_with(super::Versions::Tls13, super::ClientCertificates::None).await
    }

    router_link::contract!(ends);
}

mod tls_1_2 {
    async fn ends() -> super::Ends {
        super::ends_with(super::Versions::Tls12, super::ClientCertificates::None).await
    }

    router_link::contract!(ends);
}

mod mutual {
    async fn ends() -> super::Ends {
        super::ends_with(super::Versions::Both, super::ClientCertificates::Required).await
    }

    router_link::contract!(ends);
}
