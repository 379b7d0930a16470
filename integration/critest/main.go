// Command critest runs the conformance tests of cri-tools against the embedded
// containerd, as the node configures it, and lists what does not pass. Kubernetes
// wants of a runtime what this network forbids and this containerd leaves out, so
// failures are expected: docs/runtimes.md explains each. It needs root, what
// `make` builds, and busybox as a static program, of which the images are made;
// nothing is downloaded.
package main

import (
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/internal/imagekit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := flag.String("root", ".", "the checkout, after `make`")
	focus := flag.String("focus", "", "run only the tests that match this pattern")
	busybox := flag.String("busybox", "busybox", "a static busybox")
	flag.Parse()
	if err := run(ctx, *root, *busybox, *focus); err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, busybox, focus string) (err error) {
	if root, err = filepath.Abs(root); err != nil {
		return err
	}
	bundle := filepath.Join(root, "bundle")
	if busybox, err = exec.LookPath(busybox); err != nil {
		return fmt.Errorf("%w: install the package busybox-static", err)
	}
	dir, err := os.MkdirTemp("", "v6critest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	registry, err := imagekit.Serve(ctx, imagekit.RegistryOptions{})
	if err != nil {
		return err
	}
	defer registry.Close()
	if err := images(ctx, registry, busybox); err != nil {
		return err
	}
	if err := mirrors(filepath.Join(dir, "root", "certs.d"), registry.Host()); err != nil {
		return err
	}
	d, err := lab.Containerd(ctx, dir, bundle, filepath.Join(root, "bin", "v6node-cni"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.EndContainerd(d)) }()

	report := filepath.Join(dir, "report.xml")
	args := []string{"--runtime-endpoint", d.Endpoint(), "--image-endpoint", d.Endpoint(), "--ginkgo.junit-report", report, "--ginkgo.no-color", "--ginkgo.timeout=20m"}
	if focus != "" {
		args = append(args, "--ginkgo.focus", focus)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bundle, "critest"), args...)
	cmd.Env = append(os.Environ(), "PATH="+bundle+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	tests := cmd.Run() // its failures are in the report
	found, err := summary(report)
	if err != nil {
		return errors.Join(tests, err)
	}
	fmt.Print(found)
	return nil
}

// scripts are what the tests call and not every busybox has.
var scripts = map[string]string{
	"/bin/pgrep": "#!/bin/sh\nfor p in /proc/[0-9]*; do read -r n < $p/comm 2>/dev/null; case $n in *$1*) echo ${p#/proc/};; esac; done\n",
	"/bin/ipcs":  "#!/bin/sh\ncat /proc/sysvipc/shm\n",
}

// images makes those that the tests ask for by name, as far as busybox can stand
// in for them.
func images(ctx context.Context, registry *imagekit.Registry, busybox string) error {
	list, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", busybox, err)
	}
	base := []imagekit.File{
		{Path: "/www/index.html", Mode: 0o644, Data: []byte("It works!\n")},
		{Path: "/tmp/", Mode: 0o777}, {Path: "/root/", Mode: 0o700}, {Path: "/var/", Mode: 0o755}, {Path: "/home/", Mode: 0o755},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\nnogroup:x:65534:\n")},
	}
	for name, text := range scripts {
		base = append(base, imagekit.File{Path: name, Mode: 0o755, Data: []byte(text)})
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			base = append(base, imagekit.File{Path: "/bin/" + applet, Link: "busybox"})
		}
	}
	const web = `mkdir -p /var/run; echo $$ > /var/run/nginx.pid; httpd -p 80 -h /www; while :; do sleep 1000; done # nginx: master process`
	const staging = "k8s-staging-cri-tools/"
	for _, i := range []struct{ name, tag, user, mark string }{
		{"e2e-test-images/busybox", "1.29-2", "", ""}, {"e2e-test-images/busybox", "1.29-4", "", ""}, {"e2e-test-images/busybox", "1.36.1-1", "", ""},
		{"e2e-test-images/nonewprivs", "1.3", "", "nnp"}, {"e2e-test-images/nginx", "1.14-2", "", "web"},
		{staging + "hostnet-nginx-amd64", "latest", "", "hostweb"},
		{staging + "test-image-latest", "latest", "", "latest"}, {staging + "test-image-tag", "test", "", "test"}, {staging + "test-image-tag", "all", "", "all"},
		{staging + "test-image-digest", "test", "", "digest"},
		{staging + "test-image-1", "latest", "", "1"}, {staging + "test-image-2", "latest", "", "2"}, {staging + "test-image-3", "latest", "", "3"},
		{staging + "test-image-tags", "1", "", "same"}, {staging + "test-image-tags", "2", "", "same"}, {staging + "test-image-tags", "3", "", "same"},
		{staging + "test-image-user-uid", "latest", "1002", ""}, {staging + "test-image-user-username", "latest", "www-data", ""},
		{staging + "test-image-user-uid-group", "latest", "1003:www-data", ""}, {staging + "test-image-user-username-group", "latest", "www-data:100", ""},
		{staging + "test-image-predefined-group", "latest", "1000", "group"}, {"pause", "3.9", "", "pause"},
	} {
		files := slices.Clone(base)
		if i.mark != "" {
			files = append(files, imagekit.File{Path: "/mark", Mode: 0o644, Data: []byte(i.mark)})
		}
		cmd := []string{"sh"}
		if strings.HasSuffix(i.mark, "web") || i.mark == "httpd" {
			cmd = []string{"sh", "-c", web}
		}
		img, err := imagekit.Build(imagekit.Spec{Binary: busybox, Path: "/bin/busybox", Files: files, Entrypoint: []string{}, Cmd: cmd, User: i.user, Env: []string{"PATH=/bin"}})
		if err != nil {
			return err
		}
		if _, err := registry.Push(i.name, i.tag, img); err != nil {
			return err
		}
	}
	return nil
}

// mirrors makes one registry stand for all that the tests name.
func mirrors(certs, host string) error {
	for _, name := range []string{"registry.k8s.io", "gcr.io", "k8s.gcr.io"} {
		dir := filepath.Join(certs, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		text := fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", host)
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// result is a test as JUnit's XML has it.
type result struct {
	Name    string `xml:"name,attr"`
	Status  string `xml:"status,attr"`
	Failure *struct {
		Message string `xml:"message,attr"`
	} `xml:"failure"`
}

// summary counts the results, and lists those that are not passed.
func summary(report string) (string, error) {
	text, err := os.ReadFile(report)
	if err != nil {
		return "", fmt.Errorf("critest has written no report: %w", err)
	}
	var doc struct {
		Tests []result `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		return "", fmt.Errorf("read critest's report: %w", err)
	}
	count := map[string]int{}
	var lines []string
	for _, r := range doc.Tests {
		if !strings.HasPrefix(r.Name, "[It]") {
			continue
		}
		count[r.Status]++
		if r.Status != "passed" {
			why := ""
			if r.Failure != nil {
				why, _, _ = strings.Cut(r.Failure.Message, "\n")
			}
			lines = append(lines, fmt.Sprintf("%-8s %s: %s\n", r.Status, strings.TrimPrefix(r.Name, "[It] "), why))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "") + fmt.Sprintf("passed %d, failed %d, skipped %d\n", count["passed"], count["failed"], count["skipped"]), nil
}
