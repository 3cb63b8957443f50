package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// loadCompose reads a compose file as Docker Compose does, with nothing set in the environment.
func loadCompose(ctx context.Context, path string) (*types.Project, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	project, err := loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir: filepath.Dir(path), ConfigFiles: []types.ConfigFile{{Filename: path, Content: content}}, Environment: types.Mapping{},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return project, nil
}

const composeSecrets = "/run/secrets"

// composeNodes returns the nodes of a project by the names of their services.
func composeNodes(project *types.Project) map[string]*deployment {
	nodes := make(map[string]*deployment)
	for name, service := range project.Services {
		if !strings.HasPrefix(service.Image, "evently:") || len(service.Command) > 0 && service.Command[0] != "serve" {
			continue
		}
		node := &deployment{name: "compose.yaml: " + name, variables: variablesOf(&service), secrets: composeSecrets}
		if service.StopGracePeriod != nil {
			node.grace = time.Duration(*service.StopGracePeriod)
		}
		nodes[name] = node
	}
	return nodes
}

func variablesOf(service *types.ServiceConfig) map[string]string {
	variables := make(map[string]string)
	for name, value := range service.Environment {
		if value != nil {
			variables[name] = *value
		}
	}
	return variables
}

// checkCompose holds a compose file to the source that it deploys.
func checkCompose(ctx context.Context, root, path string, p program) error {
	project, err := loadCompose(ctx, path)
	if err != nil {
		return err
	}
	nodes := composeNodes(project)
	var wrong []error
	complain := func(err error, subject string) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s: %w", path, subject, err))
		}
	}
	if len(nodes) < 3 || len(nodes)%2 == 0 {
		wrong = append(wrong, fmt.Errorf("%s: %d nodes; three or more are wanted, an odd number", path, len(nodes)))
	}
	var peers []string
	for name := range nodes {
		peers = append(peers, name+":7946")
	}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		node, service := nodes[name], project.Services[name]
		complain(checkNode(root, node, len(nodes)), name)
		complain(differ(strings.Split(node.variables["EVENTLY_JOIN"], ","), peers), name+": EVENTLY_JOIN")
		complain(checkComposeNode(ctx, &service, p), name)
		for variable, want := range map[string]string{"EVENTLY_CLUSTER_ADVERTISE": name + ":7946", "EVENTLY_REMOTE_ADVERTISE": name + ":7947"} {
			if got := node.variables[variable]; got != want {
				complain(fmt.Errorf("%s is %q, want %q", variable, got, want), name)
			}
		}
		complain(checkMemory(node.variables, int64(service.MemLimit)), name)
	}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service := project.Services[name]
		complain(checkService(ctx, &service, p), name)
	}
	for name, volume := range project.Volumes {
		if volume.External {
			complain(errors.New("the volume is external: nobody makes it"), name)
		}
	}
	if postgres, found := project.Services["postgres"]; !found || len(postgres.Ports) > 0 || len(postgres.Volumes) == 0 {
		complain(errors.New("must be there, with a volume and without a published port"), "postgres")
	}
	return errors.Join(wrong...)
}

func checkComposeNode(ctx context.Context, service *types.ServiceConfig, p program) error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if service.Restart != types.RestartPolicyUnlessStopped {
		complain("restart is %q", service.Restart)
	}
	if !service.ReadOnly {
		complain("its file system can be written")
	}
	for _, port := range service.Ports {
		if port.Target != 8080 {
			complain("port %d is published, which is for other nodes and Prometheus", port.Target)
		}
	}
	if service.DependsOn["migrate"].Condition != types.ServiceConditionCompletedSuccessfully {
		complain("it does not wait for migrate")
	}
	if service.HealthCheck == nil || len(service.HealthCheck.Test) < 3 {
		complain("it has no health check")
	} else if test := service.HealthCheck.Test; test[0] != "CMD" || test[1] != "/evently" {
		complain("the health check %q needs something that is not in the image", test)
	} else if err := p.checkCommand(ctx, test[2:]...); err != nil {
		complain("the health check: %w", err)
	}
	return errors.Join(wrong...)
}

// checkService holds any service to what all need.
func checkService(ctx context.Context, service *types.ServiceConfig, p program) error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	ours := strings.HasPrefix(service.Image, "evently:")
	if !ours && !pinned(service.Image) {
		complain("the image %s is not pinned to a version", service.Image)
	}
	if ours && len(service.Command) > 0 {
		if err := p.checkCommand(ctx, service.Command...); err != nil {
			complain("%w", err)
		}
	}
	if ours && (service.Build == nil || service.Build.Dockerfile == "") {
		complain("nobody builds its image")
	} else if ours {
		if _, err := os.Stat(filepath.Join(service.Build.Context, service.Build.Dockerfile)); err != nil {
			complain("build: %w", err)
		}
	}
	if !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
		complain("it may gain privileges")
	}
	if service.Privileged || len(service.CapAdd) > 0 {
		complain("it is given privileges")
	}
	for _, port := range service.Ports {
		if port.HostIP != "127.0.0.1" {
			complain("port %d is published to everybody", port.Target)
		}
	}
	granted := make(map[string]bool)
	for _, secret := range service.Secrets {
		granted[composeSecrets+"/"+secret.Source] = true
	}
	for name, value := range variablesOf(service) {
		if strings.HasSuffix(name, "_FILE") && !granted[value] {
			complain("%s is %s, which is none of its secrets", name, value)
		}
		delete(granted, value)
	}
	for path := range granted {
		complain("it is given %s and does not read it", path)
	}
	for _, volume := range service.Volumes {
		if volume.Type == types.VolumeTypeBind {
			if _, err := os.Stat(volume.Source); err != nil {
				complain("volume: %w", err)
			}
		}
	}
	return errors.Join(wrong...)
}
