package check

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDockerfile(t *testing.T) {
	testCheck(t, func(t *testing.T, deploy string) error {
		return checkDockerfile(t.Context(), filepath.Join(deploy, "Dockerfile"))
	}, []defect{
		{edit{"Dockerfile", "", ""}, "no such file"},
		{edit{"Dockerfile", "STOPSIGNAL", "STOPSIGN"}, "unknown instruction"},
		{edit{"Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"}, "STOPSIGNAL SIGKILL"},
		{edit{"Dockerfile", "--from=build", "--form=build"}, "unknown flag"},
		{edit{"Dockerfile", "AS build", "as build"}, "FromAsCasing"},
		{edit{"Dockerfile", "$VERSION", "$VERSIONS"}, "UndefinedVar"},
		{edit{"Dockerfile", `ENTRYPOINT ["/evently"]`, "ENTRYPOINT /evently"}, "JSONArgsRecommended"},
		{edit{"Dockerfile", "ARG COMMIT=", "ARG JWT_SECRET="}, "SecretsUsedInArgOrEnv"},
		{edit{"Dockerfile", "golang:1.26-bookworm", "golang:latest"}, "golang:latest is not pinned"},
		{edit{"Dockerfile", "static-debian12:nonroot", "static"}, "gcr.io/distroless/static is not pinned"},
		{edit{"Dockerfile", "USER 65532:65532", "USER nonroot"}, "sees only of a number"},
		{edit{"Dockerfile", "USER 65532:65532", "USER 0:0"}, "USER 0:0"},
		{edit{"Dockerfile", "USER 65532:65532", "RUN true"}, "the image has no USER"},
	})
}

func TestDockerfile_BuildsAStaticProgramFromItsContext(t *testing.T) {
	p := testProgram(t)
	if err := p.checkStatic(t.Context()); err != nil {
		t.Error(err)
	}
	if err := program("/bin/sh").checkStatic(t.Context()); err == nil || !strings.Contains(err.Error(), "dynamically") {
		t.Errorf("/bin/sh passes for static: %v", err)
	}
}

func TestDockerfile_ContextWithoutAPartOfTheProgramDoesNotBuild(t *testing.T) {
	testProgram(t) // first, so that the build's cache is warm
	root := testRoot(t)
	for _, d := range []defect{
		{edit{"Dockerfile.dockerignore", "dist\n", "dist\nstore\n"}, "evently/store"},
		{edit{"Dockerfile.dockerignore", "dist\n", "dist\n**/*.sql\n"}, "migrations/*.sql"},
		{edit{"Dockerfile", "-trimpath", "-trimpaths"}, "flag provided but not defined"},
	} {
		deploy, folder := copied(t, d.edit), t.TempDir()
		if _, err := buildContext(root, filepath.Join(deploy, "Dockerfile.dockerignore"), folder); err != nil {
			t.Fatal(err)
		}
		_, err := build(t.Context(), filepath.Join(deploy, "Dockerfile"), folder, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), d.want) {
			t.Errorf("%s: with %q the build's fault is %v; want %q", d.file, d.new, err, d.want)
		}
	}
	deploy := copied(t, edit{"Dockerfile.dockerignore", "deploy\n", ""})
	sent, err := buildContext(root, filepath.Join(deploy, "Dockerfile.dockerignore"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkContext(sent); err == nil || !strings.Contains(err.Error(), "deploy/") {
		t.Errorf("deploy in the context: %v", err)
	}
}

func TestCompose(t *testing.T) {
	p := testProgram(t)
	testCheck(t, func(t *testing.T, deploy string) error {
		return checkCompose(t.Context(), testRoot(t), filepath.Join(deploy, "compose.yaml"), p)
	}, []defect{
		{edit{"compose.yaml", "", ""}, "no such file"},
		{edit{"compose.yaml", "    restart: unless-stopped\n    command:", "    restarts: always\n    command:"}, "restarts"},
		{edit{"compose.yaml", "cpus: 2", "cpus: [2]"}, "cpus"},
		{edit{"compose.yaml", "stop_grace_period: 95s", "stop_grace_period: soon"}, "soon"},
		{edit{"compose.yaml", "stop_grace_period: 95s", "stop_grace_period: 75s"}, "a stop can take"},
		{edit{"compose.yaml", "[database-url, jwt-secret, cluster-key]", "[database-url, jwt-secret, gossip-key]"}, "gossip-key"},
		{edit{"compose.yaml", "FILE: /run/secrets/jwt-secret", "FILE: /run/secrets/jwt"}, "none of its secrets"},
		{edit{"compose.yaml", `QUORUM: "2"`, `QUORUM: "1"`}, "of 3 nodes the majority is 2"},
		{edit{"compose.yaml", "JOIN: node1:7946,node2:7946,node3:7946", "JOIN: node1:7946"}, "EVENTLY_JOIN"},
		{edit{"compose.yaml", "ADVERTISE: node3:7946", "ADVERTISE: node1:7946"}, "EVENTLY_CLUSTER_ADVERTISE"},
		{edit{"compose.yaml", "/evently, health", "curl, localhost"}, "not in the image"},
		{edit{"compose.yaml", "/evently, health", "/evently, healthy"}, "evently healthy"},
		{edit{"compose.yaml", "[migrate, up]", "[migrate, upwards]"}, "evently migrate upwards"},
		{edit{"compose.yaml", "postgres:16.10-bookworm", "postgres:latest"}, "not pinned"},
		{edit{"compose.yaml", "127.0.0.1:8280:8080", "8280:8080"}, "published to everybody"},
		{edit{"compose.yaml", "127.0.0.1:8280:8080", "127.0.0.1:8280:8081"}, "for other nodes and Prometheus"},
		{edit{"compose.yaml", "    shm_size: 256m\n", "    ports: [\"127.0.0.1:5432:5432\"]\n"}, "without a published port"},
		{edit{"compose.yaml", "./prometheus:/etc", "./prom:/etc"}, "no such file"},
		{edit{"compose.yaml", "dockerfile: deploy/Dockerfile", "dockerfile: Dockerfile"}, "no such file"},
		{edit{"compose.yaml", "GOMEMLIMIT: 900MiB", "GOMEMLIMIT: 1000MiB"}, "nine tenths"},
		{edit{"compose.yaml", "no-new-privileges:true", "seccomp:unconfined"}, "may gain privileges"},
		{edit{"compose.yaml", "EVENTLY_ENV: production", "EVENTLY_ENV: development"}, "EVENTLY_ENV"},
		{edit{"compose.yaml", "  EVENTLY_MIGRATE: never", "  EVENTLY_JWT_SECRET: abc\n  EVENTLY_MIGRATE: never"}, "in the open"},
	})
}

func TestKubernetes(t *testing.T) {
	p := testProgram(t)
	testCheck(t, func(t *testing.T, deploy string) error {
		base, example := filepath.Join(deploy, "kubernetes", "base"), filepath.Join(deploy, "kubernetes", "overlays", "example")
		if err := checkKubernetes(t.Context(), testRoot(t), base, false, p); err != nil {
			return err
		}
		return checkKubernetes(t.Context(), testRoot(t), example, true, p)
	}, []defect{
		{edit{"kubernetes/base/statefulset.yaml", "", ""}, "statefulset.yaml"},
		{edit{"kubernetes/overlays/example/secrets/jwt-secret", "", ""}, "jwt-secret"},
		{edit{"kubernetes/base/kustomization.yaml", "envs: [settings.env]", "environment: [settings.env]"}, "environment"},
		{edit{"kubernetes/base/kustomization.yaml", "  - network.yaml\n", ""}, "NetworkPolicy"},
		{edit{"kubernetes/base/statefulset.yaml", "replicas: 3", "replica: 3"}, `unknown field "replica"`},
		{edit{"kubernetes/base/statefulset.yaml", "minReadySeconds: 15", "minReadySeconds: 15s"}, "minReadySeconds"},
		{edit{"kubernetes/base/statefulset.yaml", "periodSeconds: 10", "periodSecond: 10"}, "periodSecond"},
		{edit{"kubernetes/base/statefulset.yaml", "apiVersion: apps/v1", "apiVersion: apps/v1beta1"}, "no check knows apps/v1beta1"},
		{edit{"kubernetes/base/statefulset.yaml", "replicas: 3", "replicas: 5"}, "of 5 nodes the majority is 3"},
		{edit{"kubernetes/base/statefulset.yaml", "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady"}, "Parallel"},
		{edit{"kubernetes/base/statefulset.yaml", "PeriodSeconds: 100", "PeriodSeconds: 75"}, "a stop can take"},
		{edit{"kubernetes/base/statefulset.yaml", "        runAsNonRoot: true\n", ""}, "root"},
		{edit{"kubernetes/base/statefulset.yaml", "        fsGroup: 65532\n", ""}, "fsGroup"},
		{edit{"kubernetes/base/statefulset.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"}, "can be written"},
		{edit{"kubernetes/base/statefulset.yaml", "drop: [ALL]", "drop: [NET_RAW]"}, "capabilities"},
		{edit{"kubernetes/base/statefulset.yaml", "RuntimeDefault", "Unconfined"}, "seccomp"},
		{edit{"kubernetes/base/statefulset.yaml", "enableServiceLinks: false", "enableServiceLinks: true"}, "variables of services"},
		{edit{"kubernetes/base/statefulset.yaml", "whenUnsatisfiable: DoNotSchedule", "whenUnsatisfiable: ScheduleAnyway"}, "one machine"},
		{edit{"kubernetes/base/statefulset.yaml", "value: $(POD_IP):7946", "value: $(PODIP):7946"}, "no such variable"},
		{edit{"kubernetes/base/statefulset.yaml", "value: 900MiB", "value: 1000MiB"}, "nine tenths"},
		{edit{"kubernetes/base/statefulset.yaml", "path: /readyz", "path: /ready"}, "readiness probe"},
		{edit{"kubernetes/base/statefulset.yaml", "failureThreshold: 60", "failureThreshold: 20"}, "startup probe"},
		{edit{"kubernetes/base/statefulset.yaml", "                seconds: 5\n", "                seconds: 0\n"}, "preStop"},
		{edit{"kubernetes/base/statefulset.yaml", "containerPort: 8081", "containerPort: 9090"}, "EVENTLY_ADMIN_ADDR"},
		{edit{"kubernetes/base/statefulset.yaml", "secretName: evently", "secretName: others"}, "no Secret others"},
		{edit{"kubernetes/base/statefulset.yaml", "- key: cluster-key", "- key: gossip-key"}, "gossip-key"},
		{edit{"kubernetes/base/statefulset.yaml", "args: [serve]", "args: [server]"}, "evently server"},
		{edit{"kubernetes/base/statefulset.yaml", "cpu: \"2\"\n", "cpu: 500m\n"}, "limit of cpu"},
		{edit{"kubernetes/base/settings.env", "evently-peers:7946", "evently:7946"}, "EVENTLY_JOIN"},
		{edit{"kubernetes/base/settings.env", "QUORUM=2", "QUORUM=3"}, "majority is 2"},
		{edit{"kubernetes/base/services.yaml", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false"}, "not ready"},
		{edit{"kubernetes/base/services.yaml", "targetPort: http", "targetPort: web"}, "no port web"},
		{edit{"kubernetes/base/services.yaml", "targetPort: http", "targetPort: admin"}, "Prometheus alone"},
		{edit{"kubernetes/base/services.yaml", "protocol: UDP", "protocol: TCP"}, "gossip-udp"},
		{edit{"kubernetes/base/services.yaml", "    app.kubernetes.io/name: evently\n  ports", "    app.kubernetes.io/name: other\n  ports"}, "selects"},
		{edit{"kubernetes/base/disruptions.yaml", "maxUnavailable: 1", "maxUnavailable: 2"}, "no quorum"},
		{edit{"kubernetes/base/disruptions.yaml", "      app.kubernetes.io/name: evently\n", "      app: evently\n"}, "selects"},
		{edit{"kubernetes/base/network.yaml", "port: admin", "port: metrics"}, "no port metrics"},
		{edit{"kubernetes/base/network.yaml", "        - port: admin\n", ""}, "nobody may reach port admin"},
		{edit{"kubernetes/base/network.yaml", "        - port: http\n", "        - port: http\n        - port: admin\n"}, "everybody may reach port admin"},
		{edit{"kubernetes/base/network.yaml", "port: 443", "port: 8443"}, "no webhook"},
		{edit{"kubernetes/base/network.yaml", "except: [10.0.0.0/8, ", "except: ["}, "webhooks may go to 10.0.0.0/8"},
		{edit{"kubernetes/base/network.yaml", "port: 587", "port: 25"}, "port 587"},
		{edit{"kubernetes/base/network.yaml", "[Ingress, Egress]", "[Egress]"}, "policyTypes"},
		{edit{"kubernetes/overlays/example/kustomization.yaml", "newTag: 0.1.0", "newTag: latest"}, "not pinned"},
		{edit{"kubernetes/overlays/example/namespace.yaml", "enforce: restricted", "enforce: privileged"}, "restricted"},
	})
}

func TestSystemd(t *testing.T) {
	p := testProgram(t)
	testCheck(t, func(t *testing.T, deploy string) error {
		folder := filepath.Join(deploy, "systemd")
		if err := systemdAnalyze(t.Context(), filepath.Join(folder, "evently.service"), t.TempDir()); err != nil {
			return err
		}
		return checkSystemd(t.Context(), testRoot(t), folder, p)
	}, []defect{
		{edit{"systemd/evently.service", "", ""}, "no such file"},
		{edit{"systemd/evently.env.example", "", ""}, "no such file"},
		{edit{"systemd/evently.service", "LimitNOFILE", "LimitNOFILES"}, "Unknown key"},
		{edit{"systemd/evently.service", "TimeoutStopSec=105s", "TimeoutStopSec=often"}, "Failed to parse"},
		{edit{"systemd/evently.service", "TimeoutStopSec=105s", "TimeoutStopSec=75s"}, "a stop can take"},
		{edit{"systemd/evently.service", "Restart=always", "Restart=on-failure"}, "Restart"},
		{edit{"systemd/evently.service", "RestartSec=2s", "RestartPreventExitStatus=2"}, "panics"},
		{edit{"systemd/evently.service", "DynamicUser=yes", "User=root"}, "root"},
		{edit{"systemd/evently.service", "SystemCallFilter=", "SystemCallFilters="}, "Unknown key"},
		{edit{"systemd/evently.service", "=yes", "=no"}, "systemd-analyze security"},
		{edit{"systemd/evently.service", "LoadCredential=jwt-secret", "LoadCredential=jwt"}, "not loaded"},
		{edit{"systemd/evently.service", "evently serve", "evently server"}, "evently server"},
		{edit{"systemd/evently.env.example", "QUORUM=2", "QUORUM=1"}, "majority is 2"},
		{edit{"systemd/evently.env.example", "EVENTLY_ENV=production", "EVENTLY_ENV production"}, "is no variable"},
	})
}

// The settings of every deployment, with secrets that the README's commands make, are ones that a node in production starts with.
func TestSettings_AreAccepted(t *testing.T) {
	p, root := testProgram(t), testRoot(t)
	check := func(t *testing.T, deploy string) error {
		secrets, err := makeSecrets(t.Context(), filepath.Join(deploy, "README.md"), t.TempDir())
		if err != nil {
			return err
		}
		project, err := loadCompose(t.Context(), filepath.Join(deploy, "compose.yaml"))
		if err != nil {
			return err
		}
		var wanted []string
		for _, secret := range project.Secrets {
			wanted = append(wanted, filepath.Join(secrets, filepath.Base(secret.File)))
		}
		if err := checkSecrets(secrets, wanted); err != nil {
			return err
		}
		// No test looks for a host named postgres: nothing listens at port 1 of this one.
		url := filepath.Join(secrets, "database-url")
		text, err := os.ReadFile(url)
		if err != nil {
			return err
		}
		elsewhere := strings.Replace(string(text), "@postgres:5432/", "@127.0.0.1:1/", 1)
		if elsewhere == string(text) {
			t.Errorf("the URL %s is not one of compose.yaml's postgres", text)
		}
		if err := os.WriteFile(url, []byte(elsewhere), 0o644); err != nil {
			return err
		}
		nodes := composeNodes(project)
		var all []*deployment
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			all = append(all, nodes[name])
		}
		machine, _, err := systemdNode(filepath.Join(deploy, "systemd"))
		if err != nil {
			return err
		}
		overlay := filepath.Join(deploy, "kubernetes", "overlays", "example")
		m, err := buildManifests(overlay)
		if err != nil {
			return err
		}
		pod, err := m.node(overlay, m.statefulSets[0])
		if err != nil {
			return err
		}
		for _, d := range append(all, machine, pod) {
			if err := p.checkSettings(t.Context(), d, secrets); err != nil {
				return err
			}
		}
		if err := p.checkSettings(t.Context(), pod, placeholders(filepath.Join(root, "deploy"))); err == nil {
			t.Error("a node starts with the placeholders of the example")
		}
		return nil
	}
	testCheck(t, check, []defect{
		{edit{"compose.yaml", "DRAIN_TIMEOUT: 15s", "DRAIN_TIMEOUT: soon"}, "drain_timeout"},
		{edit{"systemd/evently.env.example", "DRAIN_DELAY=5s", "DRAIN_DELAY=6m"}, "drain_delay"},
		{edit{"systemd/evently.env.example", "TRUSTED_PROXIES=10.0.0.10", "TRUSTED_PROXIES=balancer"}, "trusted_proxies"},
		{edit{"kubernetes/base/settings.env", "LOG_FORMAT=json", "LOG_FORMAT=yaml"}, "log_format"},
		{edit{"kubernetes/overlays/example/kustomization.yaml", "https://tickets.example", "tickets.example"}, "cors_origins"},
		{edit{"README.md", "head -c 32 /dev/urandom | od", "head -c 8 /dev/urandom | od"}, "jwt_secret"},
		{edit{"README.md", "mkdir -m 700", "mkdir -m 755"}, "others may enter"},
		{edit{"README.md", "umask 022", "umask 077"}, "containers cannot read"},
	})
}

func TestSettings_Exist(t *testing.T) {
	p := testProgram(t)
	testCheck(t, func(t *testing.T, deploy string) error { return checkVariables(t.Context(), deploy, p) }, []defect{
		{edit{"compose.yaml", "EVENTLY_JOIN", "EVENTLY_SEEDS"}, "EVENTLY_SEEDS is no setting"},
		{edit{"compose.yaml", "EVENTLY_MIGRATE: never", "EVENTLY_MIGRATE_FILE: never"}, "EVENTLY_MIGRATE_FILE is no setting"},
		{edit{"kubernetes/base/settings.env", "EVENTLY_DRAIN_DELAY", "EVENTLY_DRAIN_DELAYS"}, "EVENTLY_DRAIN_DELAYS is no setting"},
		{edit{"systemd/evently.service", "EVENTLY_DATA_DIR", "EVENTLY_DATA"}, "EVENTLY_DATA is no setting"},
		{edit{"runbooks/node-lost.md", "EVENTLY_JOIN", "EVENTLY_JOINS"}, "EVENTLY_JOINS is no setting"},
	})
}

func TestPrometheus(t *testing.T) {
	testCheck(t, func(t *testing.T, deploy string) error {
		return checkPrometheus(t.Context(), filepath.Join(deploy, "prometheus"))
	}, []defect{
		{edit{"prometheus/alerts.yml", "", ""}, "alerts.yml"},
		{edit{"prometheus/prometheus.yml", "static_configs", "statics"}, "statics"},
		{edit{"prometheus/kubernetes.yml", "port: 8081", "port: admin"}, "admin"},
		{edit{"prometheus/alerts.yml", "for: 15s", "for: long"}, "long"},
		{edit{"prometheus/alerts.yml", "max(evently_postgres_reachable) == 0", "max(evently_postgres_reachable == 0"}, "parse error"},
		{edit{"prometheus/alerts.yml", "{{ $labels.instance }} sees only", "{{ $labels.instance } sees only"}, "template"},
		{edit{"prometheus/alerts.yml", "evently_cluster_quorate == 0", "evently_cluster_quorate == 2"}, "EventlyNoQuorum"},
		{edit{"prometheus/alerts.yml", "reachable) == 0\n        for: 10s", "reachable) == 0\n        for: 1h"}, "EventlyDatabaseAway"},
	})
}

func TestAlerts(t *testing.T) {
	testCheck(t, func(t *testing.T, deploy string) error { return checkAlerts(testRoot(t), deploy) }, []defect{
		{edit{"prometheus/alerts.yml", "evently_evictions_total", "evently_eviction_total"}, "no metric evently_eviction_total"},
		{edit{"prometheus/alerts.yml", `outcome="fenced"`, `outcome="fences"`}, `ever "fences"`},
		{edit{"prometheus/alerts.yml", `outcome="fenced"`, `outcomes="fenced"`}, "label outcomes"},
		{edit{"prometheus/alerts.yml", "severity: critical", "severity: high"}, "severity"},
		{edit{"prometheus/alerts.yml", "summary: No node of Evently answers", "title: No node"}, "no summary"},
		{edit{"prometheus/alerts.yml", "overload.md#eventlypanics", "overload.md#panics"}, "EventlyPanics: its runbook"},
		{edit{"prometheus/alerts.yml", "alert: EventlyPanics", "alert: EventlyPanic"}, "no alert EventlyPanics"},
		{edit{"prometheus/alerts_test.yml", `labels: 'ALERTS{alertname="EventlyPanics"`, `labels: 'ALERTS{alertname="Other"`}, "no test has it fire"},
		{edit{"runbooks/overload.md", "## EventlyPanics", "## Panics"}, "EventlyPanics: its runbook"},
		{edit{"runbooks/overload.md", "", ""}, "EventlyPanics: its runbook"},
	})
}

func TestTargets(t *testing.T) {
	testCheck(t, func(t *testing.T, deploy string) error { return checkTargets(t.Context(), deploy) }, []defect{
		{edit{"prometheus/prometheus.yml", `, "node3:8081"`, ""}, "prometheus.yml: targets"},
		{edit{"prometheus/kubernetes.yml", "port: 8081", "port: 8080"}, "kubernetes.yml: targets"},
		{edit{"kubernetes/overlays/example/kustomization.yaml", "namespace: evently", "namespace: tickets"}, "kubernetes.yml: targets"},
	})
}

func TestDocs(t *testing.T) {
	p := testProgram(t)
	testCheck(t, func(t *testing.T, deploy string) error { return checkDocs(t.Context(), testRoot(t), deploy, p) }, []defect{
		{edit{"runbooks/node-lost.md", "(no-quorum.md)", "(quorum.md)"}, "quorum.md leads nowhere"},
		{edit{"runbooks/node-lost.md", "`evently_cluster_members`", "`evently_members`"}, "no metric evently_members"},
		{edit{"runbooks/rolling-upgrade.md", "; do\n", "; then\n"}, "unexpected"},
		{edit{"runbooks/rolling-upgrade.md", "until evently health", "until evently healthy"}, "evently healthy"},
		{edit{"runbooks/rolling-upgrade.md", "evently.new migrate up", "evently.new migrate upwards"}, "evently migrate upwards"},
		{edit{"runbooks/rolling-upgrade.md", "--http-addr=", "--address="}, "no flag --address"},
		{edit{"runbooks/ownership.md", "database-url evently verify", "database-url evently check"}, "evently check"},
		{edit{"README.md", "/evently admin create", "/evently admin add"}, "evently admin add"},
	})
}
