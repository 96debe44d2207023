"""What the files under `deploy` promise: containment, patience, a store that forgets nothing."""

import re
import sys

import pytest
import yaml

from tests.integration.deployment import (
    BALANCER_CONFIG,
    COMPOSE,
    DEPLOY,
    KUSTOMIZATIONS,
    OF_THE_SERVICE,
    REPLICAS,
    ROOT,
    SERVICES,
    check,
    containers_of,
    render,
)


@pytest.fixture(params=KUSTOMIZATIONS, ids=lambda directory: directory.name)
def documents(request):
    """The documents of each kustomization."""
    return render(request.param)


def seconds(text):
    """Return a duration as compose and HAProxy write it, in whole seconds."""
    assert text.endswith("s")
    return int(text[:-1])


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_contained(name):
    """No root, nothing writable but volumes, no privileges, a fixed image, an end that waits."""
    service = SERVICES[name]
    image, _, tag = service["image"].rpartition(":")

    assert service["user"] not in {"", "0", "root"}
    assert service["read_only"] is True
    assert ["ALL"] == service["cap_drop"]
    assert ["no-new-privileges:true"] == service["security_opt"]
    assert image
    assert "build" in service or re.match(r"v?\d+\.\d+\.\d+", tag)
    # The image of this repository brings its own.
    assert name in OF_THE_SERVICE or "test" in service["healthcheck"]


def test_the_image_holds_the_driver_of_its_store(monkeypatch):
    """What the Dockerfile takes out of pyproject.toml has Redis's client in it."""
    [program] = re.findall(r'python -c "(.*)" > core.txt', (ROOT / "Dockerfile").read_text())
    monkeypatch.chdir(ROOT)

    requirements = check(sys.executable, "-c", program).split()

    assert any(requirement.startswith("redis>") for requirement in requirements)
    assert any(requirement.startswith("fastapi>") for requirement in requirements)


def test_only_the_machine_itself_reaches_the_ports():
    """What is published beyond it, somebody has decided to."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert {f"${{PUBLISH_ADDRESS:-127.0.0.1}}:{port}:{port}" for port in (8000, 8001)} == {
        port for port in published if not port.startswith("127.0.0.1:")
    }


def test_redis_is_reached_by_replicas_only():
    """It asks for no password, so its network is theirs."""
    assert {"internal": True} == COMPOSE["networks"]["storing"]
    assert {"redis", *OF_THE_SERVICE} == {
        name for name, service in SERVICES.items() if "storing" in service["networks"]
    }


def test_redis_forgets_nothing():
    """It writes each change to its file before it answers, and never evicts."""
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert "yes" == options["--appendonly"]
    assert "always" == options["--appendfsync"]
    assert "noeviction" == options["--maxmemory-policy"]


def test_a_stop_waits_for_the_drain():
    """Whoever stops a container waits longer than the container takes."""
    [hard_stop] = re.findall(r"hard-stop-after (\d+s)", BALANCER_CONFIG.read_text())

    assert seconds(SERVICES["balancer"]["stop_grace_period"]) > seconds(hard_stop)
    for name in REPLICAS:
        drain_s = int(SERVICES[name]["environment"]["LSTM_DRAIN_TIMEOUT_S"])
        assert seconds(SERVICES[name]["stop_grace_period"]) > drain_s


def test_a_pod_waits_for_the_drain():
    """Its grace period covers the wait before the drain, the drain, and some more."""
    base = DEPLOY / "kubernetes/base"
    spec = _deployment()["spec"]["template"]["spec"]
    literals = yaml.safe_load((base / "kustomization.yaml").read_text())["configMapGenerator"][0]
    drain_s = int(dict(text.split("=") for text in literals["literals"])["LSTM_DRAIN_TIMEOUT_S"])
    before_s = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])

    assert spec["terminationGracePeriodSeconds"] >= before_s + drain_s + 5


def _deployment():
    documents = render(DEPLOY / "kubernetes/base")
    return next(document for document in documents if document["kind"] == "Deployment")


def test_pods_are_contained(documents):
    """By the `restricted` Pod Security Standard, and with a read-only root."""
    for document in documents:
        for container in containers_of(document):
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert {"type": "RuntimeDefault"} == pod["securityContext"]["seccompProfile"]
            assert pod["enableServiceLinks"] is False
            assert pod["automountServiceAccountToken"] is False
            assert {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            } == container["securityContext"]
            assert {"requests", "limits"} == set(container["resources"])


def test_kubernetes_asks_the_right_questions():
    """Readiness takes a pod out; liveness, which restarts it, never asks for the store."""
    container = _deployment()["spec"]["template"]["spec"]["containers"][0]

    assert "/readyz" == container["readinessProbe"]["httpGet"]["path"]
    assert "/healthz" == container["livenessProbe"]["httpGet"]["path"]
    assert "/healthz" == container["startupProbe"]["httpGet"]["path"]


def test_selectors_find_the_pods(documents):
    """Service, budget, policy and autoscaler mean the Deployment's pods, and no others."""
    labels = {"app.kubernetes.io/name": "lstm-service"}
    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                assert labels == spec["selector"]
            case "PodDisruptionBudget":
                assert labels == spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                assert labels == spec["podSelector"]["matchLabels"]
            case "Deployment":
                assert labels == spec["template"]["metadata"]["labels"]
                assert "replicas" not in spec
            case "HorizontalPodAutoscaler":
                assert "lstm-service" == spec["scaleTargetRef"]["name"]
            case "Job":
                assert labels != spec["template"]["metadata"]["labels"]
