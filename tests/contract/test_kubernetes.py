"""deploy/kubernetes against Kubernetes' own schemas, and what a schema cannot say: names that must agree."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lab.netns import tool

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.28", "1.37")  # the oldest that is meant, and the newest whose schemas there are
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}
ON_THE_LAN = {"dhcp", "tftp", "blockstore"}
ADDED = {"dhcp": {"NET_BIND_SERVICE", "NET_RAW"}, "tftp": {"NET_BIND_SERVICE"}}


def resources() -> list[Any]:
    """What kustomization.yaml names, in its order."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    return [one for name in listed for one in yaml.safe_load_all((FOLDER / name).read_text())]


def workloads() -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in resources() if one["kind"] in WORKLOADS}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_resource_holds_by_kubernetes_own_schema(version: str) -> None:
    for resource in resources():
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_validator_refuses_what_is_wrong() -> None:
    wrong = workloads()["dhcp"]
    wrong["spec"]["template"]["spec"]["hostNetwerk"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostNetwerk"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_nothing_runs_as_root_or_writes_to_its_root_file_system_and_capabilities_are_named() -> None:
    for name, workload in workloads().items():
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert (pod["securityContext"]["runAsNonRoot"], security["readOnlyRootFilesystem"]) == (True, True), name
        assert security["capabilities"]["drop"] == ["ALL"], name
        assert set(security["capabilities"].get("add", [])) == ADDED.get(name, set())
        # A file's capabilities are granted to a process that may gain privileges alone.
        assert security["allowPrivilegeEscalation"] == (name in ADDED)
        assert pod.get("hostNetwork", False) == (name in ON_THE_LAN)
        assert container["resources"]["limits"]["memory"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed, name


def test_each_service_is_given_its_own_key_for_nats_and_nats_none() -> None:
    for name, workload in workloads().items():
        pod = workload["spec"]["template"]["spec"]
        secrets = {one["secret"]["secretName"]: one["name"] for one in pod["volumes"] if "secret" in one}
        keys = {secret for secret in secrets if secret.startswith("nats")}
        if name == "nats":
            assert not secrets
            continue
        assert keys == {f"nats-{name}"}
        (container,) = pod["containers"]
        told = {one["name"]: one.get("value") for one in container["env"]}
        folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert told["BOOTLINK_NATS_CREDENTIALS_FILE"] == f"{folders[secrets[f'nats-{name}']]}/key"
        assert pod["securityContext"]["fsGroup"] == 10001, "a secret's file is root's and its group's"


def test_prometheus_and_the_kubelet_reach_the_health_port_that_is_named() -> None:
    """On a pod that shares its node's network 127.0.0.1 is the node's own, and Prometheus is elsewhere."""
    scraped = set()
    for name, workload in workloads().items():
        template = workload["spec"]["template"]
        (container,) = template["spec"]["containers"]
        probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
        assert not [probe for probe in probes if "host" in probe], name
        annotations = template["metadata"].get("annotations", {})
        if annotations.get("prometheus.io/scrape") != "true":
            continue
        scraped.add(name)
        told = {one["name"]: one for one in container["env"]}[f"BOOTLINK_{name.upper()}_HEALTH_HOST"]
        where = told.get("value") or told["valueFrom"]["fieldRef"]["fieldPath"]
        assert where == ("status.hostIP" if name in ON_THE_LAN else "0.0.0.0")
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        assert {str(ports.get(probe["port"], probe["port"])) for probe in probes} == {annotations["prometheus.io/port"]}
    assert scraped == {*ON_THE_LAN, "registry"}


def test_prometheus_gives_the_pods_it_finds_the_labels_that_dashboards_go_by(tmp_path: Path) -> None:
    """By Prometheus' own relabelling, of pods as its discovery would tell of them: Debian's Prometheus has none."""
    told = yaml.safe_load((FOLDER.parent / "prometheus" / "kubernetes.yml").read_text())
    (job,) = told["scrape_configs"]
    assert [(one["role"], one["namespaces"]) for one in job.pop("kubernetes_sd_configs")] == [
        ("pod", {"names": ["bootlink"]})
    ]
    pods = {name: one["spec"]["template"]["metadata"] for name, one in workloads().items()}
    job["static_configs"] = [
        {"targets": ["10.1.2.3"], "labels": {"__meta_kubernetes_pod_ip": "10.1.2.3", **_discovered(pod)}}
        for pod in pods.values()
    ]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    done = subprocess.run(
        [tool("promtool", "prometheus"), "check", "service-discovery", str(config), job["job_name"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [one["labels"] for one in json.loads(done.stdout) if one["labels"]]
    assert {(one["job"], one["service"], one["__address__"]) for one in found} == {
        ("bootlink", name, f"10.1.2.3:{pod['annotations']['prometheus.io/port']}")
        for name, pod in pods.items()
        if name != "nats"
    }


def _discovered(pod: Mapping[str, Any]) -> dict[str, str]:
    """The labels that Prometheus' discovery makes of a pod's own."""
    return {
        f"__meta_kubernetes_pod_{kind}_{re.sub('[^a-zA-Z0-9_]', '_', name)}": value
        for kind in ("label", "annotation")
        for name, value in pod.get(f"{kind}s", {}).items()
    }


def test_a_nats_that_stores_nothing_any_more_is_started_anew() -> None:
    """As `up` does it, by the same question: tests/adversity/test_outages.py."""
    (container,) = workloads()["nats"]["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert "js-server-only" in container["startupProbe"]["httpGet"]["path"], "its streams may take their time"


def test_what_lasts_is_on_disks_of_the_node() -> None:
    volumes = {
        name: {volume["name"] for volume in one["spec"]["template"]["spec"]["volumes"] if "hostPath" in volume}
        for name, one in workloads().items()
    }
    assert volumes["blockstore"] == {"writebacks", "store", "images"}
    assert volumes["registry"] == {"store", "images"}
    assert "data" in volumes["dhcp"]


def test_selectors_find_the_pods_they_mean() -> None:
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in workloads().items()}
    budgets = set()
    for resource in resources():
        spec = resource.get("spec", {})
        if resource["kind"] in WORKLOADS | {"PodDisruptionBudget"}:
            selector = spec["selector"]["matchLabels"]
        elif resource["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        elif resource["kind"] == "Service":
            selector = spec["selector"]
        else:
            continue
        name = resource["metadata"]["name"]
        assert selector.items() <= labels[name].items(), (resource["kind"], name)
        if resource["kind"] == "PodDisruptionBudget":
            budgets.add(name)
    assert budgets == {"nats", *ON_THE_LAN}, "with one for its only pod, the registry's node could not be drained"


def test_ports_are_those_of_the_images() -> None:
    image = (FOLDER.parents[1] / "Dockerfile").read_text()
    for name in (*ON_THE_LAN, "registry"):
        (container,) = workloads()[name]["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container[probe]["httpGet"]["port"]
            assert f"BOOTLINK_{name.upper()}_HEALTH_PORT={ports.get(port, port)}" in image
