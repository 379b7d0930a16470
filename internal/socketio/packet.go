package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrPacket is wrapped by every error about a packet that does not follow the protocol.
var ErrPacket = errors.New("malformed packet")

// ErrBinary is returned for packets that carry binary attachments, which this package refuses.
var ErrBinary = errors.New("binary packets are not supported")

// engineType is the first character of every websocket text message (Engine.IO 4).
type engineType byte

const (
	engineOpen    engineType = '0'
	engineClose   engineType = '1'
	enginePing    engineType = '2'
	enginePong    engineType = '3'
	engineMessage engineType = '4'
	engineUpgrade engineType = '5'
	engineNoop    engineType = '6'
)

// splitEngine takes the Engine.IO type off a message.
func splitEngine(msg []byte) (engineType, []byte, error) {
	if len(msg) == 0 {
		return 0, nil, fmt.Errorf("%w: empty message", ErrPacket)
	}
	if msg[0] < '0' || msg[0] > '6' {
		return 0, nil, fmt.Errorf("%w: unknown Engine.IO type %q", ErrPacket, msg[0])
	}
	return engineType(msg[0]), msg[1:], nil
}

// PacketType is the Socket.IO type of a packet.
type PacketType byte

// The Socket.IO packet types.
const (
	Connect      PacketType = '0'
	Disconnect   PacketType = '1'
	EventPacket  PacketType = '2'
	Ack          PacketType = '3'
	ConnectErr   PacketType = '4'
	binaryEvent  PacketType = '5'
	binaryAck    PacketType = '6'
	maxNamespace            = 255
)

// Packet is one Socket.IO packet without its Engine.IO prefix.
type Packet struct {
	Type      PacketType
	Namespace string          // always set; the default namespace is "/"
	ID        *uint64         // acknowledgement id, nil when there is none
	Data      json.RawMessage // valid JSON, or nil when there is no payload
}

// DecodePacket parses a Socket.IO packet. The payload is checked to be JSON, and to be an array
// for events and acknowledgements; it aliases b. The caller bounds the size of b.
func DecodePacket(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, fmt.Errorf("%w: empty", ErrPacket)
	}
	p := Packet{Type: PacketType(b[0]), Namespace: "/"}
	switch p.Type {
	case Connect, Disconnect, EventPacket, Ack, ConnectErr:
	case binaryEvent, binaryAck:
		return Packet{}, ErrBinary
	default:
		return Packet{}, fmt.Errorf("%w: unknown Socket.IO type %q", ErrPacket, b[0])
	}
	b = b[1:]
	if len(b) > 0 && b[0] == '/' {
		ns, rest, _ := bytes.Cut(b, []byte(","))
		if len(ns) > maxNamespace {
			return Packet{}, fmt.Errorf("%w: namespace longer than %d bytes", ErrPacket, maxNamespace)
		}
		// Older clients append a query string to the namespace.
		name, _, _ := strings.Cut(string(ns), "?")
		p.Namespace, b = name, rest
	}
	digits := 0
	for digits < len(b) && b[digits] >= '0' && b[digits] <= '9' {
		digits++
	}
	if digits > 0 {
		id, err := strconv.ParseUint(string(b[:digits]), 10, 64)
		if err != nil {
			return Packet{}, fmt.Errorf("%w: acknowledgement id out of range", ErrPacket)
		}
		p.ID, b = &id, b[digits:]
	}
	if len(b) > 0 {
		if !json.Valid(b) {
			return Packet{}, fmt.Errorf("%w: payload is not JSON", ErrPacket)
		}
		p.Data = json.RawMessage(b)
	}
	if (p.Type == EventPacket || p.Type == Ack) && !bytes.HasPrefix(bytes.TrimLeft(p.Data, " \t\r\n"), []byte("[")) {
		return Packet{}, fmt.Errorf("%w: payload is not an array", ErrPacket)
	}
	return p, nil
}

// Encode writes the packet as DecodePacket reads it.
func (p Packet) Encode() []byte {
	b := []byte{byte(p.Type)}
	if p.Namespace != "" && p.Namespace != "/" {
		b = append(append(b, p.Namespace...), ',')
	}
	if p.ID != nil {
		b = strconv.AppendUint(b, *p.ID, 10)
	}
	return append(b, p.Data...)
}

// Event is a named message with its arguments, each still JSON.
type Event struct {
	Name string
	Args []json.RawMessage
}

// decodeEvent reads the payload of an event packet: ["name", arg, ...].
func decodeEvent(data json.RawMessage) (Event, error) {
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return Event{}, fmt.Errorf("%w: event: %w", ErrPacket, err)
	}
	if len(parts) == 0 || len(parts[0]) == 0 || parts[0][0] != '"' {
		return Event{}, fmt.Errorf("%w: event without a name", ErrPacket)
	}
	e := Event{Args: parts[1:]}
	if err := json.Unmarshal(parts[0], &e.Name); err != nil {
		return Event{}, fmt.Errorf("%w: event name: %w", ErrPacket, err)
	}
	return e, nil
}

// encodeEvent builds the payload of an event packet.
func encodeEvent(name string, args []any) (json.RawMessage, error) {
	data, err := json.Marshal(append([]any{name}, args...))
	if err != nil {
		return nil, fmt.Errorf("event %q cannot be sent as JSON: %w", name, err)
	}
	return data, nil
}
