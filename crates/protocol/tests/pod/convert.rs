//! Other people's files, and the pods that they become.

use expect_test::{ExpectFile, expect, expect_file};
use protocol::{
    convert::convert,
    pod::{Fault, Pod},
};

fn check(file: &str, wanted: ExpectFile) {
    let converted = convert(&[file]).expect("it converts");
    let lines = |faults: &[Fault]| -> String {
        faults.iter().map(|fault| format!("# {fault}\n")).collect()
    };
    let notes: String = converted.notes.iter().map(|note| format!("# {note}\n")).collect();
    wanted.assert_eq(&format!(
        "{}\n# left out\n{}\n# notes\n{notes}",
        converted.compose,
        lines(&converted.left_out)
    ));
    assert_eq!(converted.open, []);
    let parsed = Pod::from_compose(&converted.compose, &()).expect("a pod file");
    let pod = parsed.resolve(crate::find).expect("a pod");
    assert_eq!(Pod::decode(&pod.canonical()).expect("a pod"), pod);
}

#[test]
fn kubernetes_becomes_compose() {
    let file = include_str!("../pods/convert/shop.kubernetes.yaml");
    check(file, expect_file!["../pods/convert/shop.compose.yaml"]);
}

#[test]
fn akash_becomes_compose() {
    let file = include_str!("../pods/convert/blog.akash.yaml");
    check(file, expect_file!["../pods/convert/blog.compose.yaml"]);
}

#[test]
fn several_files_refer_to_one_another() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: { containers: [{ name: web, image: a, envFrom: [{ configMapRef: { name: c } }] }] }";
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { A: b }";
    let both = convert(&[pod, config]).unwrap();
    assert!(both.compose.contains("A: b"), "{}", both.compose);
    assert_eq!(both.left_out, []);
    let alone = convert(&[pod]).unwrap();
    let left_out: Vec<String> = alone.left_out.iter().map(ToString::to_string).collect();
    expect!["Pod/web.spec.containers[0].envFrom[0].configMapRef: there is no ConfigMap c in these files; add it"]
        .assert_eq(&left_out.join("\n"));
}

#[test]
fn what_is_neither_is_refused() {
    let check = |files: &[&str], wanted: expect_test::Expect| {
        wanted.assert_eq(&convert(files).unwrap_err().to_string());
    };
    check(
        &["services: { web: { image: a } }"],
        expect![
            "the file: this is neither a Kubernetes manifest (with apiVersion and kind) nor an Akash SDL (with services and deployment)"
        ],
    );
    check(
        &[""],
        expect![
            "the file: this is neither a Kubernetes manifest (with apiVersion and kind) nor an Akash SDL (with services and deployment)"
        ],
    );
    check(&["a: [", "b"], expect!["file 1: unclosed bracket '[' at line 1, column 4"]);
    check(
        &["apiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { a: b }"],
        expect!["services: nothing in it runs; write a Pod, a Deployment, a StatefulSet or a Job"],
    );
}

#[test]
fn what_a_pod_cannot_be_stays_open() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: { containers: [{ name: web, image: Acme/App, resources: { limits: { memory: 1k } } }] }";
    let open: Vec<String> = convert(&[pod]).unwrap().open.iter().map(ToString::to_string).collect();
    expect![[r#"
        services.web.deploy.resources.limits.memory: 1000 B is out of range; write 6 MiB to 4 TiB
        services.web.image: image names are in lower case: "acme/app""#]]
    .assert_eq(&open.join("\n"));
}

#[test]
fn values_of_secrets_are_not_copied() {
    let file = include_str!("../pods/convert/shop.kubernetes.yaml");
    assert!(!convert(&[file]).unwrap().compose.contains("c2VjcmV0"));
}
