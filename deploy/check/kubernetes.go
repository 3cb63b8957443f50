package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifests are the objects of a kustomization.
type manifests struct {
	namespaces   []*corev1.Namespace
	accounts     []*corev1.ServiceAccount
	services     []*corev1.Service
	settings     []*corev1.ConfigMap
	secrets      []*corev1.Secret
	statefulSets []*appsv1.StatefulSet
	budgets      []*policyv1.PodDisruptionBudget
	networks     []*networkingv1.NetworkPolicy
}

// buildManifests does what `kubectl kustomize` does, and reads each object as the server does that validates strictly: an unknown
// field, a field twice and a value of a wrong type are errors.
func buildManifests(folder string) (*manifests, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, err
	}
	m := new(manifests)
	var wrong []error
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			return nil, err
		}
		if err := m.add(resource.GetApiVersion()+" "+resource.GetKind(), text); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s %s: %w", folder, resource.GetKind(), resource.GetName(), err))
		}
	}
	return m, errors.Join(wrong...)
}

func (m *manifests) add(kind string, text []byte) error {
	switch kind {
	case "v1 Namespace":
		return decode(text, &m.namespaces)
	case "v1 ServiceAccount":
		return decode(text, &m.accounts)
	case "v1 Service":
		return decode(text, &m.services)
	case "v1 ConfigMap":
		return decode(text, &m.settings)
	case "v1 Secret":
		return decode(text, &m.secrets)
	case "apps/v1 StatefulSet":
		return decode(text, &m.statefulSets)
	case "policy/v1 PodDisruptionBudget":
		return decode(text, &m.budgets)
	case "networking.k8s.io/v1 NetworkPolicy":
		return decode(text, &m.networks)
	default:
		return fmt.Errorf("no check knows %s", kind)
	}
}

func decode[T any](text []byte, list *[]*T) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(text, object); err != nil {
		return err
	}
	*list = append(*list, object)
	return nil
}

const kubernetesSecrets = "/run/secrets/evently"

// checkKubernetes holds a kustomization to rules of our own. A base has no Secret and no namespace.
func checkKubernetes(ctx context.Context, root, folder string, overlay bool, p program) error {
	m, err := buildManifests(folder)
	if err != nil {
		return err
	}
	if len(m.statefulSets) != 1 || len(m.budgets) != 1 || len(m.networks) != 1 || len(m.services) != 2 {
		return fmt.Errorf("%s: has not one StatefulSet, PodDisruptionBudget and NetworkPolicy, and two Services", folder)
	}
	set := m.statefulSets[0]
	node, err := m.node(folder, set)
	if err != nil {
		return err
	}
	wrong := []error{checkNode(root, node, int(*set.Spec.Replicas))}
	complain := func(subject string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s: %w", folder, subject, err))
		}
	}
	complain("StatefulSet", checkStatefulSet(set))
	complain("pod", m.checkPod(&set.Spec.Template.Spec, overlay))
	for _, container := range slices.Concat(set.Spec.Template.Spec.InitContainers, set.Spec.Template.Spec.Containers) {
		complain(container.Name, checkContainer(&container))
		complain(container.Name, p.checkCommand(ctx, container.Args...))
		if overlay && !pinned(container.Image) {
			complain(container.Name, fmt.Errorf("the image %s is not pinned to a version", container.Image))
		}
	}
	complain("container", checkServing(&set.Spec.Template.Spec.Containers[0], node))
	for _, service := range m.services {
		complain("Service "+service.Name, checkServicePorts(service, set))
	}
	complain("Services", m.checkPeers(set, node))
	complain("NetworkPolicy", checkNetwork(m.networks[0], set))
	complain("PodDisruptionBudget", selects(m.budgets[0].Spec.Selector.MatchLabels, set.Spec.Template.Labels))
	if budget := m.budgets[0].Spec; budget.MaxUnavailable == nil || budget.MaxUnavailable.IntValue() > int(*set.Spec.Replicas)/2 {
		complain("PodDisruptionBudget", errors.New("leaves no quorum"))
	}
	if overlay {
		complain("namespace", m.checkNamespace())
	}
	return errors.Join(wrong...)
}

// podIP stands for the address that Kubernetes gives a pod.
const podIP = "10.1.2.3"

// node returns the settings of the pods of a set, as they see them.
func (m *manifests) node(folder string, set *appsv1.StatefulSet) (*deployment, error) {
	pod := &set.Spec.Template.Spec
	if len(pod.Containers) != 1 {
		return nil, fmt.Errorf("%s: %d containers", folder, len(pod.Containers))
	}
	variables := make(map[string]string)
	for _, from := range pod.Containers[0].EnvFrom {
		at := slices.IndexFunc(m.settings, func(c *corev1.ConfigMap) bool { return from.ConfigMapRef != nil && c.Name == from.ConfigMapRef.Name })
		if at < 0 {
			return nil, fmt.Errorf("%s: envFrom names no ConfigMap of this kustomization", folder)
		}
		maps.Copy(variables, m.settings[at].Data)
	}
	for _, variable := range pod.Containers[0].Env {
		value := variable.Value
		switch {
		case variable.ValueFrom == nil:
			value = strings.ReplaceAll(value, "$(POD_IP)", podIP)
		case variable.ValueFrom.FieldRef != nil && variable.ValueFrom.FieldRef.FieldPath == "status.podIP":
			value = podIP
		case variable.ValueFrom.ResourceFieldRef != nil && variable.ValueFrom.ResourceFieldRef.Resource == "limits.cpu":
			value = fmt.Sprint(pod.Containers[0].Resources.Limits.Cpu().Value())
		default:
			return nil, fmt.Errorf("%s: %s comes from somewhere that no check knows", folder, variable.Name)
		}
		if strings.Contains(value, "$(") {
			return nil, fmt.Errorf("%s: %s is %s, and there is no such variable before it", folder, variable.Name, value)
		}
		variables[variable.Name] = value
	}
	node := &deployment{name: folder, variables: variables, secrets: kubernetesSecrets}
	if pod.TerminationGracePeriodSeconds != nil {
		node.grace = time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	}
	if lifecycle := pod.Containers[0].Lifecycle; lifecycle != nil && lifecycle.PreStop != nil && lifecycle.PreStop.Sleep != nil {
		node.before = time.Duration(lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	return node, nil
}

func checkStatefulSet(set *appsv1.StatefulSet) error {
	var wrong []error
	if *set.Spec.Replicas < 3 || *set.Spec.Replicas%2 == 0 {
		wrong = append(wrong, fmt.Errorf("%d replicas; three or more are wanted, an odd number", *set.Spec.Replicas))
	}
	if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		wrong = append(wrong, errors.New("the first pod would wait for a quorum, and the second for the first: podManagementPolicy must be Parallel"))
	}
	if set.Spec.MinReadySeconds == 0 {
		wrong = append(wrong, errors.New("minReadySeconds is 0: the next node goes before events have moved"))
	}
	return errors.Join(append(wrong, selects(set.Spec.Selector.MatchLabels, set.Spec.Template.Labels))...)
}

// selects refuses a selector that is empty or does not match.
func selects(selector, labels map[string]string) error {
	if len(selector) == 0 {
		return errors.New("the selector is empty")
	}
	for name, value := range selector {
		if labels[name] != value {
			return fmt.Errorf("it selects %s=%s, and the pods have %q", name, value, labels[name])
		}
	}
	return nil
}

func (m *manifests) checkPod(pod *corev1.PodSpec, overlay bool) error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	context := pod.SecurityContext
	switch {
	case context == nil:
		complain("it has no securityContext")
	case context.RunAsNonRoot == nil || !*context.RunAsNonRoot || context.RunAsUser == nil || *context.RunAsUser == 0:
		complain("it may run as root")
	case context.SeccompProfile == nil || context.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		complain("it has no seccomp profile")
	case context.FSGroup == nil:
		complain("without fsGroup it cannot read its secrets")
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		complain("it is given a token for Kubernetes")
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		complain("it is given variables of services")
	}
	if !slices.ContainsFunc(m.accounts, func(a *corev1.ServiceAccount) bool { return a.Name == pod.ServiceAccountName }) {
		complain("there is no ServiceAccount %q", pod.ServiceAccountName)
	}
	apart := slices.ContainsFunc(pod.TopologySpreadConstraints, func(c corev1.TopologySpreadConstraint) bool {
		return c.TopologyKey == corev1.LabelHostname && c.MaxSkew == 1 && c.WhenUnsatisfiable == corev1.DoNotSchedule
	})
	if !apart {
		complain("two pods may come to lie on one machine")
	}
	volumes := make(map[string]*corev1.Volume)
	for i := range pod.Volumes {
		volumes[pod.Volumes[i].Name] = &pod.Volumes[i]
	}
	for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, mount := range container.VolumeMounts {
			if volumes[mount.Name] == nil {
				complain("%s mounts %s, which is no volume", container.Name, mount.Name)
			}
		}
	}
	for _, volume := range volumes {
		if err := m.checkSecretVolume(volume); overlay && err != nil {
			complain("volume %s: %w", volume.Name, err)
		}
	}
	return errors.Join(wrong...)
}

func (m *manifests) checkSecretVolume(volume *corev1.Volume) error {
	if volume.Secret == nil {
		return errors.New("is no Secret")
	}
	at := slices.IndexFunc(m.secrets, func(s *corev1.Secret) bool { return s.Name == volume.Secret.SecretName })
	if at < 0 {
		return fmt.Errorf("there is no Secret %s", volume.Secret.SecretName)
	}
	var items []string
	for _, item := range volume.Secret.Items {
		items = append(items, item.Key)
	}
	return differ(items, slices.Collect(maps.Keys(m.secrets[at].Data)))
}

// checkContainer holds any container to what all need.
func checkContainer(container *corev1.Container) error {
	var wrong []error
	complain := func(text string) { wrong = append(wrong, errors.New(text)) }
	context := container.SecurityContext
	switch {
	case context == nil:
		complain("it has no securityContext")
	case context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem:
		complain("its file system can be written")
	case context.AllowPrivilegeEscalation == nil || *context.AllowPrivilegeEscalation:
		complain("it may gain privileges")
	case context.Capabilities == nil || !slices.Equal(context.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(context.Capabilities.Add) > 0:
		complain("it keeps capabilities")
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := container.Resources.Requests[name], container.Resources.Limits[name]
		if request.IsZero() || limit.IsZero() || request.Cmp(limit) > 0 {
			complain("its request and limit of " + string(name) + " are missing or the wrong way round")
		}
	}
	return errors.Join(wrong...)
}

// startTimeoutDefault is how long a node tries to start unless told otherwise.
const startTimeoutDefault = time.Minute

// checkServing holds the container of a node to what it needs.
func checkServing(container *corev1.Container, node *deployment) error {
	wrong := []error{checkMemory(node.variables, container.Resources.Limits.Memory().Value())}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	ports := make(map[string]string)
	for _, port := range container.Ports {
		if port.Name == "" || ports[port.Name] != "" {
			complain("port %d needs a name of its own", port.ContainerPort)
		}
		ports[port.Name] = fmt.Sprint(port.ContainerPort)
	}
	for variable, port := range map[string]string{
		"EVENTLY_HTTP_ADDR": "http", "EVENTLY_ADMIN_ADDR": "admin", "EVENTLY_CLUSTER_ADDR": "gossip-tcp", "EVENTLY_REMOTE_ADDR": "remote",
	} {
		if got, want := node.variables[variable], "0.0.0.0:"+ports[port]; got != want {
			complain("%s is %q, and port %s is %s", variable, got, port, want)
		}
	}
	if ports["gossip-udp"] != ports["gossip-tcp"] {
		complain("gossip has two ports")
	}
	for variable, port := range map[string]string{"EVENTLY_CLUSTER_ADVERTISE": "gossip-tcp", "EVENTLY_REMOTE_ADVERTISE": "remote"} {
		if got, want := node.variables[variable], podIP+":"+ports[port]; got != want {
			complain("%s is %q, want the pod's address: %s", variable, got, want)
		}
	}
	if got, want := node.variables["GOMAXPROCS"], fmt.Sprint(container.Resources.Limits.Cpu().Value()); got != want {
		complain("GOMAXPROCS is %q, and the limit is %s", got, want)
	}
	for name, probe := range map[string]struct {
		*corev1.Probe
		path string
	}{
		"startup": {container.StartupProbe, "/livez"}, "liveness": {container.LivenessProbe, "/livez"}, "readiness": {container.ReadinessProbe, "/readyz"},
	} {
		switch {
		case probe.Probe == nil || probe.HTTPGet == nil:
			complain("no %s probe", name)
		case probe.HTTPGet.Path != probe.path || probe.HTTPGet.Port.String() != "http":
			complain("the %s probe asks %s at %s", name, probe.HTTPGet.Path, probe.HTTPGet.Port.String())
		case name == "startup" && time.Duration(probe.PeriodSeconds*probe.FailureThreshold)*time.Second <= startTimeoutDefault:
			complain("the startup probe gives up before the node does (%s)", startTimeoutDefault)
		}
	}
	if node.before == 0 {
		complain("no preStop sleep: requests still come when the node has stopped")
	}
	return errors.Join(wrong...)
}

// checkServicePorts refuses ports of a service that the pods do not have.
func checkServicePorts(service *corev1.Service, set *appsv1.StatefulSet) error {
	wrong := []error{selects(service.Spec.Selector, set.Spec.Template.Labels)}
	for _, port := range service.Spec.Ports {
		if err := namedPort(set, port.TargetPort.String(), port.Protocol); err != nil {
			wrong = append(wrong, err)
		}
		if port.TargetPort.String() == "admin" {
			wrong = append(wrong, errors.New("metrics and profiles are for Prometheus alone, and not for a service"))
		}
	}
	return errors.Join(wrong...)
}

// namedPort refuses a name that no port of the pods has with a protocol, of which TCP may be left out.
func namedPort(set *appsv1.StatefulSet, name string, protocol corev1.Protocol) error {
	tcp := func(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }
	for _, port := range set.Spec.Template.Spec.Containers[0].Ports {
		if port.Name == name && (port.Protocol == protocol || tcp(port.Protocol) && tcp(protocol)) {
			return nil
		}
	}
	return fmt.Errorf("the pods have no port %s of protocol %q", name, protocol)
}

// checkPeers refuses a headless service that nodes cannot find each other by before they are ready.
func (m *manifests) checkPeers(set *appsv1.StatefulSet, node *deployment) error {
	at := slices.IndexFunc(m.services, func(s *corev1.Service) bool { return s.Name == set.Spec.ServiceName })
	if at < 0 {
		return fmt.Errorf("there is no service %q for the StatefulSet", set.Spec.ServiceName)
	}
	peers := m.services[at]
	var wrong []error
	if peers.Spec.ClusterIP != corev1.ClusterIPNone || !peers.Spec.PublishNotReadyAddresses {
		wrong = append(wrong, errors.New("the nodes' service must be headless and publish nodes that are not ready"))
	}
	_, port, _ := strings.Cut(node.variables["EVENTLY_CLUSTER_ADDR"], ":")
	if got, want := node.variables["EVENTLY_JOIN"], peers.Name+":"+port; got != want {
		wrong = append(wrong, fmt.Errorf("EVENTLY_JOIN is %q, want %q", got, want))
	}
	return errors.Join(wrong...)
}

// checkNetwork refuses a policy that lets others than Prometheus reach the operators' listener, or others than nodes the nodes' ports, and
// one with which checkEgress finds fault.
func checkNetwork(policy *networkingv1.NetworkPolicy, set *appsv1.StatefulSet) error {
	labels := set.Spec.Template.Labels
	wrong := []error{selects(policy.Spec.PodSelector.MatchLabels, labels)}
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	if !slices.Equal(policy.Spec.PolicyTypes, both) {
		complain("policyTypes is %q, want %q", policy.Spec.PolicyTypes, both)
	}
	allowed := make(map[string]bool)
	for _, rule := range policy.Spec.Ingress {
		for _, port := range rule.Ports {
			var protocol corev1.Protocol
			if port.Protocol != nil {
				protocol = *port.Protocol
			}
			if err := namedPort(set, port.Port.String(), protocol); err != nil {
				complain("%w", err)
			}
			allowed[port.Port.String()] = true
			if port.Port.String() == "http" {
				continue
			}
			if len(rule.From) == 0 {
				complain("everybody may reach port %s", port.Port.String())
			}
			for _, peer := range rule.From {
				switch {
				case peer.PodSelector == nil || len(peer.PodSelector.MatchLabels) == 0:
					complain("whole namespaces may reach port %s", port.Port.String())
				case port.Port.String() == "admin" && peer.NamespaceSelector == nil:
					complain("nodes may reach port admin")
				case port.Port.String() != "admin" && (peer.NamespaceSelector != nil || selects(peer.PodSelector.MatchLabels, labels) != nil):
					complain("others than nodes may reach port %s", port.Port.String())
				}
			}
		}
	}
	for _, port := range set.Spec.Template.Spec.Containers[0].Ports {
		if !allowed[port.Name] {
			complain("nobody may reach port %s", port.Name)
		}
	}
	return errors.Join(append(wrong, checkEgress(policy.Spec.Egress))...)
}

// checkEgress refuses rules that keep a node from what it needs, or let webhooks go to private networks.
func checkEgress(rules []networkingv1.NetworkPolicyEgressRule) error {
	var wrong []error
	allowed := make(map[string]bool)
	for _, rule := range rules {
		for _, port := range rule.Ports {
			allowed[port.Port.String()] = true
			if port.Port.String() != "443" {
				continue
			}
			for _, private := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} {
				if len(rule.To) == 0 || rule.To[0].IPBlock == nil || !slices.Contains(rule.To[0].IPBlock.Except, private) {
					wrong = append(wrong, fmt.Errorf("webhooks may go to %s", private))
				}
			}
		}
	}
	for port, what := range map[string]string{
		"5432": "database", "53": "name", "7946": "gossip", "7947": "other event", "587": "mail server", "465": "mail server", "443": "webhook",
	} {
		if !allowed[port] {
			wrong = append(wrong, fmt.Errorf("no %s can be reached at port %s", what, port))
		}
	}
	return errors.Join(wrong...)
}

// checkNamespace refuses objects outside of the overlay's namespace.
func (m *manifests) checkNamespace() error {
	if len(m.namespaces) != 1 {
		return fmt.Errorf("%d namespaces", len(m.namespaces))
	}
	name := m.namespaces[0].Name
	for _, object := range []string{
		m.statefulSets[0].Namespace, m.services[0].Namespace, m.services[1].Namespace, m.budgets[0].Namespace, m.networks[0].Namespace,
		m.secrets[0].Namespace, m.settings[0].Namespace,
	} {
		if object != name {
			return fmt.Errorf("an object is in %q, not in %q", object, name)
		}
	}
	if m.namespaces[0].Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		return errors.New("it does not enforce the restricted standard")
	}
	return nil
}

// scrapeName is the name that Prometheus finds the pods of a kustomization by.
func (m *manifests) scrapeName() string {
	return m.statefulSets[0].Spec.ServiceName + "." + m.statefulSets[0].Namespace + ".svc.cluster.local"
}

// placeholders is where the secrets of the example are.
func placeholders(deploy string) string {
	return filepath.Join(deploy, "kubernetes", "overlays", "example", "secrets")
}
