"""The files in export/serving: what the server, Docker and Kubernetes would read in them."""

import pathlib
import re

import pytest
import yaml

FOLDER = pathlib.Path(__file__).parents[2] / "export" / "serving"
FLAGS = {
    "--model_config_file": "models.config",
    "--batching_parameters_file": "batching.config",
    "--monitoring_config_file": "monitoring.config",
}


def documents(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_two_versions_have_labels():
    text_format = pytest.importorskip("google.protobuf.text_format")
    configs = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    parsed = text_format.Parse((FOLDER / "models.config").read_text(), configs.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("translator", "/models/translator", "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


def test_the_largest_batch_is_the_last_allowed_one():
    """The server refuses to start otherwise; its package of messages lacks that of this file."""
    text = (FOLDER / "batching.config").read_text()
    sizes = [int(size) for size in re.findall(r"^allowed_batch_sizes: (\d+)$", text, re.MULTILINE)]
    assert sizes == sorted(sizes)
    assert re.findall(r"^max_batch_size \{ value: (\d+) \}$", text, re.MULTILINE) == [str(sizes[-1])]


def test_docker_and_kubernetes_start_the_server_with_these_files():
    compose = documents("compose.yaml")[0]["services"]
    (deployment,) = documents("kubernetes/deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (kustomization,) = documents("kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]
    for arguments in (compose["cpu"]["command"], compose["gpu"]["command"], container["args"]):
        given = dict(argument.split("=", 1) for argument in arguments)
        assert {flag: given[flag] for flag in FLAGS} == {flag: f"/config/{file}" for flag, file in FLAGS.items()}
        assert given["--enable_batching"] == given["--allow_version_labels_for_unavailable_models"] == "true"
    mounted = {line.split(":")[0].removeprefix("./") for line in compose["cpu"]["volumes"] if "/config/" in line}
    assert mounted == set(generated["files"]) == set(FLAGS.values())
    assert all((FOLDER / file).is_file() for file in [*generated["files"], *kustomization["resources"]])
    # Only this machine reaches the server of compose.yaml.
    assert all(port.startswith("127.0.0.1:") for port in compose["cpu"]["ports"])


def test_what_belongs_together_in_kubernetes_has_the_same_names():
    (deployment,) = documents("kubernetes/deployment.yaml")
    (autoscaler,) = documents("kubernetes/autoscaler.yaml")
    (disruption,) = documents("kubernetes/disruption.yaml")
    grpc, rest = documents("kubernetes/service.yaml")
    pod = deployment["spec"]["template"]
    labels, (container,) = pod["metadata"]["labels"], pod["spec"]["containers"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], disruption["spec"]["selector"]["matchLabels"]):
        assert selector == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for service, name in ((grpc, "grpc"), (rest, "rest")):
        assert service["spec"]["selector"] == labels
        assert service["spec"]["ports"] == [{"name": name, "port": ports[name], "targetPort": name}]
    assert grpc["spec"]["clusterIP"] == "None"
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (volume,) = [each for each in pod["spec"]["volumes"] if "configMap" in each]
    assert volume["configMap"]["name"] == documents("kustomization.yaml")[0]["configMapGenerator"][0]["name"]
    # What the README has for GPUs changes this and nothing else.
    (gpu,) = documents("gpu/kustomization.yaml")
    # A component, since an overlay must not lie below what it changes.
    assert gpu["kind"] == "Component" and "resources" not in gpu
    (main,) = documents("kustomization.yaml")
    assert container["image"] == f"{gpu['images'][0]['name']}:1" == f"{main['images'][0]['name']}:1"
    (patch,) = yaml.safe_load(gpu["patches"][0]["patch"])
    assert patch == {
        "op": "add",
        "path": "/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu",
        "value": 1,
    }
    assert "limits" in container["resources"]


@pytest.mark.parametrize("file", sorted(path.name for path in (FOLDER / "kubernetes").iterdir()))
def test_manifests_are_what_kubernetes_takes(file):
    validate = pytest.importorskip("kubernetes_validate").validate
    for document in documents(f"kubernetes/{file}"):
        validate(document, "1.31", strict=True)
