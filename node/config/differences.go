package config

import (
	"reflect"
	"slices"

	"github.com/v6node/v6node/node/limits"
)

// keyOf names the key of the file by which a field of Config is set; several fields may have one.
var keyOf = map[string]string{
	"Name": "the file's name", "Server": "server_url, port, api_path or ca_file", "APIKey": "api_key", "APIKeyFile": "api_key_file",
	"StateDir": "state_dir", "TaskDir": "task_dir", "Databases": "databases", "Encryption": "encryption", "Policies": "policies",
	"Registries": "docker_registries", "RegistryAccess": "registries", "SIF": "sif", "AlgorithmEnv": "algorithm_env", "ShareConfig": "share_config",
	"ShareAlgorithmLogs": "share_algorithm_logs", "RunContextFile": "run_context_file", "LogLevel": "logging.level", "LogFormat": "logging.format",
	"Prometheus": "prometheus", "Metrics": "metrics", "Runtime": "runtime", "Proxy": "proxy_port", "GC": "gc", "Limits": "limits",
	"LimitRules": "limit_rules", "Enforce": "resources.enforce", "Budget": "resources.budget or resources.reserve",
	"Admission": "resources.subtasks or resources.queue", "Cgroup": "resources.cgroup", "PollInterval": "poll_interval", "StopGrace": "stop_grace",
	"Services": "services", "Tunnels": "ssh-tunnels", "Whitelist": "whitelist",
}

// Differences are the keys whose values differ in two configurations, in the order of Config.
func Differences(a, b *Config) []string {
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	var out []string
	for i := range va.NumField() {
		key := keyOf[va.Type().Field(i).Name]
		same := reflect.DeepEqual(va.Field(i).Interface(), vb.Field(i).Interface())
		if _, rules := va.Field(i).Interface().([]limits.Rule); rules {
			same = slices.EqualFunc(a.LimitRules, b.LimitRules, limits.Rule.Equal)
		}
		if _, list := va.Field(i).Interface().(Whitelist); list {
			same = a.Whitelist.equal(b.Whitelist)
		}
		if !same {
			out = append(out, key)
		}
	}
	return out
}
