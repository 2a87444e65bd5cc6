//! x
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
#[test]
fn x() {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let c = rt.block_on(async { RuntimeServiceClient::connect("unix:///tmp/x").await });
    println!("{c:?}");
}
