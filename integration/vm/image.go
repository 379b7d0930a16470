package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// release is the Debian release of the machine.
const release = "bookworm"

// packages are those of the machine beside the essential ones, and kernelModules
// what its kernel needs to find its disks.
var (
	packages = []string{
		"dbus", "dbus-user-session", "e2fsprogs", "iproute2", "kmod", "libpam-systemd", "linux-image-cloud-amd64", "nftables", "passwd",
		"procps", "squashfs-tools", "systemd", "systemd-sysv", "uidmap",
	}
	kernelModules = []string{"virtio_pci", "virtio_blk", "ext4"}
)

//go:embed setup.sh
var setup string

// image is a base file system with the kernel that belongs to it.
type image struct{ root, kernel, initrd string }

// imageKey changes with everything that an image is made from, but for the
// versions of Debian's packages.
func imageKey() string {
	sum := sha256.New()
	for _, s := range append(append([]string{release, imageSize, setup, "modules"}, kernelModules...), packages...) {
		fmt.Fprintf(sum, "%s\x00", s)
	}
	return fmt.Sprintf("%s-%x", release, sum.Sum(nil)[:8])
}

// imageSize is the size of the machine's disk. The file has holes.
const imageSize = "8G"

// findImage returns the image in the cache, after it has made it where it is
// missing or again is set. Others that do the same wait.
func findImage(ctx context.Context, cache, mirror string, again bool) (image, error) {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return image{}, err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return image{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return image{}, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	dir := filepath.Join(cache, imageKey())
	im := image{filepath.Join(dir, "root.ext4"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")}
	if _, err := os.Stat(dir); err == nil && !again {
		return im, nil
	}
	say("making the machine's file system in %s; this takes some minutes and is done once", cache)
	tmp, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return image{}, err
	}
	defer os.RemoveAll(tmp)
	if err := makeImage(ctx, tmp, mirror); err != nil {
		return image{}, err
	}
	// Those of other package lists are not used any more.
	old, err := filepath.Glob(filepath.Join(cache, "*-*"))
	if err != nil {
		return image{}, err
	}
	for _, o := range old {
		if o != tmp {
			if err := os.RemoveAll(o); err != nil {
				return image{}, err
			}
		}
	}
	return im, os.Rename(tmp, dir)
}

func makeImage(ctx context.Context, dir, mirror string) error {
	root := filepath.Join(dir, "root")
	// An initial RAM disk with three drivers unpacks much faster than one
	// that fits every computer.
	conf, modules := filepath.Join(dir, "initramfs.conf"), filepath.Join(dir, "modules")
	script := filepath.Join(dir, "setup.sh")
	for file, text := range map[string]string{conf: "MODULES=list\n", modules: strings.Join(kernelModules, "\n") + "\n", script: setup} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	args := []string{
		"--mode=root", "--variant=minbase", "--format=directory", "--include=" + strings.Join(packages, ","),
		"--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Acquire::Languages none", "--aptopt=APT::Sandbox::User root",
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--essential-hook=mkdir -p \"$1/etc/initramfs-tools/conf.d\"",
		"--essential-hook=cp " + quote(conf) + " \"$1/etc/initramfs-tools/conf.d/v6node\"",
		"--essential-hook=cp " + quote(modules) + " \"$1/etc/initramfs-tools/modules\"",
		"--customize-hook=chroot \"$1\" sh -s < " + quote(script),
		release, root,
	}
	if mirror != "" {
		args = append(args, mirror)
	}
	cmd := command(ctx, "mmdebstrap", args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	// Whatever it started and mounted ends with it, however it ends.
	cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWPID, syscall.CLONE_NEWNS
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	for pattern, name := range map[string]string{"vmlinuz-*": "vmlinuz", "initrd.img-*": "initrd.img"} {
		found, err := filepath.Glob(filepath.Join(root, "boot", pattern))
		if err != nil || len(found) != 1 {
			return errors.Join(fmt.Errorf("the new file system has %d files /boot/%s", len(found), pattern), err)
		}
		if err := copyFile(found[0], filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := makeDisk(ctx, root, filepath.Join(dir, "root.ext4"), imageSize); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(root), os.Remove(conf), os.Remove(modules), os.Remove(script))
}

// makeDisk puts a directory into an ext4 file system.
func makeDisk(ctx context.Context, dir, file, size string) error {
	out, err := command(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-d", dir, file, size).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// quote makes a word for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// copyTree copies the regular files of a directory.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch at := filepath.Join(to, rel); {
		case d.IsDir():
			return os.MkdirAll(at, 0o755)
		case d.Type().IsRegular():
			return copyFile(path, at)
		}
		return nil
	})
}
