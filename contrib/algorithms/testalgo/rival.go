package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// opponent is what rival is told of another run that lives at the same time. The mark is in all that
// the other has: input, databases, variables, files, shared memory, sockets.
type opponent struct {
	Mark      []byte   `json:"mark"` // in base64, so that this file is no find
	Token     string   `json:"token"`
	Paths     []string `json:"paths"`     // of its files, here and on the machine
	Names     []string `json:"names"`     // of its hosts
	Addresses []string `json:"addresses"` // host:port that it can connect to
}

// findings are what rival got of one side: its own, to show that it can find, and the other's.
type findings struct {
	Files    []string          `json:"files"`    // with the mark in them or in their names
	Shared   map[string]string `json:"shared"`   // abstract socket, SysV objects, keyring, TCP, UDP -> "" or why not
	Paths    map[string]string `json:"paths"`    // -> "" or why not
	Names    map[string]string `json:"names"`    // -> "" or why not
	Connect  map[string]string `json:"connect"`  // -> "" or why not
	API      int               `json:"api"`      // status of the API with the token
	Detour   map[string]int    `json:"detour"`   // status of a CONNECT to the address through the API's listener
	Signals  bool              `json:"signals"`  // there is another process that can be signalled
	Scanned  int               `json:"scanned"`  // addresses with port that were tried
	Open     []string          `json:"open"`     // and what was found
	Listen   []string          `json:"listen"`   // what the kernel says of that, as probe has it
	Port     int               `json:"port"`     // at which it listens itself, on all addresses
	Database string            `json:"database"` // what the own database answers
}

// rival spreads a mark over everything that runs could share, meets another run that does the same,
// and looks for the other's mark and possessions with the means with which it finds its own.
func rival(in *contract.Input) (any, error) {
	var mark, database string
	for name, v := range map[string]any{"mark": &mark, "database": &database} {
		if _, err := in.Arg(-1, name, v); err != nil {
			return nil, err
		}
	}
	dir, err := contract.Variable("TEMPORARY_FOLDER")
	if err != nil {
		return nil, err
	}
	end, err := expose(mark, dir)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := meet(dir, "ready", "other"); err != nil {
		return nil, err
	}
	var other opponent
	text, err := os.ReadFile(filepath.Join(dir, "other"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(json.Unmarshal(text, &other), os.Remove(filepath.Join(dir, "other"))); err != nil {
		return nil, err
	}
	token, err := contract.Variable("TOKEN_FILE")
	if err != nil {
		return nil, err
	}
	ownToken, err := os.ReadFile(token)
	if err != nil {
		return nil, err
	}
	own := attack(&opponent{Mark: []byte(mark), Token: string(ownToken), Paths: []string{token, dir}, Names: []string{"localhost"}, Addresses: []string{database}})
	own.Database, err = exchange(database, mark)
	if err != nil {
		return nil, fmt.Errorf("the own database: %w", err)
	}
	theirs := attack(&other)
	own.Port = port(mark)
	own.Open, own.Scanned = scan()
	own.Listen = listeners()
	result := map[string]any{"own": own, "theirs": theirs}
	if err := meet(dir, "done", "leave"); err != nil { // the other looks meanwhile
		return nil, err
	}
	return result, nil
}

// meet says something and waits for an answer.
func meet(dir, say, wait string) error {
	if err := os.WriteFile(filepath.Join(dir, say), nil, 0o666); err != nil {
		return err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, wait))
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		time.Sleep(gateLook)
	}
}

// key, and with it port, name a run's own things in shared name spaces.
func key(mark string) int  { return int(crc32.ChecksumIEEE([]byte(mark)) & 0x7fffffff) }
func port(mark string) int { return 20000 + key(mark)%10000 }
func memory(id int) (string, error) {
	b, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
	if err != nil {
		return "", err
	}
	text, _, _ := strings.Cut(string(b), "\x00")
	return text, unix.SysvShmDetach(b)
}

// expose makes what another run is not to find.
func expose(mark, dir string) (end func(), err error) {
	for _, place := range []string{"/tmp", "/dev/shm", dir} {
		if err := os.WriteFile(filepath.Join(place, "of-"+mark), []byte(mark), 0o666); err != nil {
			return nil, err
		}
	}
	var open []io.Closer
	end = func() {
		for _, c := range open {
			c.Close()
		}
	}
	listen := func(network, address string) {
		var l net.Listener
		if err == nil {
			if l, err = net.Listen(network, address); err == nil {
				open = append(open, l)
			}
		}
	}
	listen("unix", "@of-"+mark)
	listen("unix", filepath.Join(dir, "socket-of-"+mark))
	listen("tcp", ":"+strconv.Itoa(port(mark)))
	if err == nil {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", ":"+strconv.Itoa(port(mark))); err == nil {
			open = append(open, c)
			go func() { // ends with the socket
				b := make([]byte, 16)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = c.WriteTo([]byte(mark), from) // who asks will see
				}
			}()
		}
	}
	if err != nil {
		end()
		return nil, err
	}
	if id, err := unix.SysvShmGet(key(mark), 4096, unix.IPC_CREAT|0o666); err == nil { // else nobody can have any
		if b, err := unix.SysvShmAttach(id, 0, 0); err == nil {
			copy(b, mark+"\x00")
			_ = unix.SysvShmDetach(b) // the segment stays
		}
	}
	_, _, _ = unix.Syscall(unix.SYS_MSGGET, uintptr(key(mark)), unix.IPC_CREAT|0o666, 0)
	for _, ring := range []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING} {
		_, _ = unix.AddKey("user", "of-"+mark, []byte(mark), ring) // it may not be allowed
	}
	return end, nil
}

// attack tries to get at what one side has.
func attack(o *opponent) *findings {
	mark := string(o.Mark)
	f := &findings{
		Files: search(mark), Shared: shared(mark), Paths: map[string]string{}, Names: map[string]string{}, Detour: map[string]int{},
		Connect: connectAll(o.Addresses),
	}
	for _, path := range o.Paths {
		f.Paths[path] = why(readSome(path))
	}
	for _, name := range o.Names {
		_, err := net.LookupHost(name)
		f.Names[name] = why(err)
	}
	f.API = status(func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+o.Token) }, "GET", "/organization")
	for _, a := range o.Addresses {
		f.Detour[a] = status(func(r *http.Request) { r.Host = a }, "CONNECT", "")
	}
	f.Signals = unix.Kill(-1, 0) == nil // to all but this one
	return f
}

// status asks the listener of the vantage6 API for something; 0 is no answer.
func status(change func(*http.Request), method, path string) int {
	host, p := strings.TrimPrefix(variable("HOST"), "http://"), variable("PORT")
	r, err := http.NewRequest(method, "http://"+net.JoinHostPort(host, p)+path, nil)
	if err != nil {
		return 0
	}
	change(r)
	client := &http.Client{Timeout: connectTimeout, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// search looks through every file that can be read for the mark.
func search(mark string) []string {
	var found []string
	_ = filepath.WalkDir("/", func(path string, e fs.DirEntry, err error) error { // what cannot be read is no find
		if err != nil {
			return nil
		}
		if e.IsDir() && (path == "/sys" || strings.HasPrefix(path, "/proc/") && e.Name() == "task") {
			return fs.SkipDir
		}
		if strings.Contains(e.Name(), mark) || e.Type().IsRegular() && contains(path, mark) {
			found = append(found, path)
		}
		return nil
	})
	slices.Sort(found)
	return found
}

// contains looks into the first megabytes of a file. Variables are looked at decoded, too.
func contains(path, mark string) bool {
	switch filepath.Base(path) {
	case "kmsg", "kcore", "mem", "pagemap", "clear_refs":
		return false // endless, or not text
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(time.Second)) // files of disks have none
	text, _ := io.ReadAll(io.LimitReader(f, 4<<20))
	if bytes.Contains(text, []byte(mark)) {
		return true
	}
	if filepath.Base(path) != "environ" {
		return false
	}
	for _, v := range bytes.Split(text, []byte{0}) {
		_, value, _ := strings.Cut(string(v), "=")
		if plain, err := contract.Decode(value); err == nil && strings.Contains(plain, mark) {
			return true
		}
	}
	return false
}

// shared tries the name spaces of the kernel that processes may share.
func shared(mark string) map[string]string {
	out := map[string]string{}
	dial := func(what, network, address string) {
		c, err := net.DialTimeout(network, address, time.Second)
		if c != nil {
			c.Close()
		}
		out[what] = why(err)
	}
	dial("abstract socket", "unix", "@of-"+mark)
	dial("tcp", "tcp", "127.0.0.1:"+strconv.Itoa(port(mark)))
	dial("tcp of eth0", "tcp", "192.0.2.2:"+strconv.Itoa(port(mark)))
	out["udp"] = why(asked("127.0.0.1:"+strconv.Itoa(port(mark)), mark))
	id, err := unix.SysvShmGet(key(mark), 0, 0)
	if err == nil {
		var text string
		if text, err = memory(id); err == nil && text != mark {
			err = fmt.Errorf("it holds %q", text)
		}
	}
	out["shared memory"] = why(err)
	_, _, errno := unix.Syscall(unix.SYS_MSGGET, uintptr(key(mark)), 0, 0)
	if out["message queue"] = ""; errno != 0 {
		out["message queue"] = errno.Error()
	}
	out["keyring"] = "no keyring has it"
	for _, ring := range []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING} {
		id, err := unix.KeyctlSearch(ring, "user", "of-"+mark, 0)
		if err != nil {
			continue
		}
		b := make([]byte, 256)
		if n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b, 0); err == nil && n <= len(b) && string(b[:n]) == mark {
			out["keyring"] = ""
		}
	}
	return out
}

// asked sends a datagram and wants the mark back.
func asked(address, mark string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	b := make([]byte, 1024)
	n, err := c.Read(b)
	if err == nil && string(b[:n]) != mark {
		err = fmt.Errorf("it answers %q", b[:n])
	}
	return err
}

// scan connects to the ports of servers at the addresses that the sandbox has, and those next to them.
func scan() (open []string, tried int) {
	ports := []int{3128, 3306, 5432, 8080, 8443, 10010}
	for p := 1; p <= 1024; p++ {
		ports = append(ports, p)
	}
	for _, i := range interfaces() {
		for _, a := range i.Addresses {
			ip, _, err := net.ParseCIDR(a)
			if err != nil || ip.To4() == nil {
				continue
			}
			hosts := []net.IP{ip}
			if ip.IsLoopback() { // the gateway's addresses are next to it
				for last := byte(2); last < 6; last++ {
					hosts = append(hosts, net.IPv4(127, 0, 0, last))
				}
			}
			for _, h := range hosts {
				for _, p := range ports {
					if tried++; listens(h.To4(), p) {
						open = append(open, fmt.Sprintf("%s:%d", h, p))
					}
				}
			}
		}
	}
	return open, tried
}

// listens tries one port without the machinery of the library: on this machine the kernel answers at
// once.
func listens(ip net.IP, port int) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no port stays behind
	return unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte(ip)}) == nil
}
