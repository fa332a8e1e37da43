// Files of datastores: where they are, sparse copies, and disk descriptors.
//
// Every disk here is a descriptor and a flat file that holds its whole content, sparse; also that of
// a snapshot's child disk, which in a real datastore holds the differences only.
package simulator

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmware/govmomi/object"
)

const (
	seekData = 3
	seekHole = 4
	ficlone  = 0x40049409
)

// dsFile is the local file of "[datastore] folder/name", "" if there is no such datastore.
func dsFile(p string) string {
	var d object.DatastorePath
	if !d.FromString(p) {
		return ""
	}
	for _, e := range Map.All("Datastore") {
		if e.Entity().Name == d.Datastore {
			return path.Join(e.(*Datastore).Info.GetDatastoreInfo().Url, d.Path)
		}
	}
	return ""
}

// flat is the local file with the content of the disk whose descriptor is p.
func flat(p string) string { return strings.TrimSuffix(dsFile(p), ".vmdk") + "-flat.vmdk" }

type extent struct{ start, end int64 }

// segments are the parts of a file that are no holes.
func segments(f *os.File, size int64) []extent {
	var res []extent
	for at := int64(0); at < size; {
		start, err := f.Seek(at, seekData)
		if err != nil || start >= size {
			break // ENXIO: a hole up to the end
		}
		end, err := f.Seek(start, seekHole)
		if err != nil || end > size {
			end = size
		}
		res = append(res, extent{start, end})
		at = end
	}
	return res
}

// clone makes dst a sparse copy of src, by reflink where the filesystem can. Whoever has the old
// dst open or linked keeps the old content.
func clone(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path.Dir(dst), 0755); err != nil {
		return err
	}
	out, err := os.Create(dst + ".tmp")
	if err != nil {
		return err
	}
	defer out.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, out.Fd(), ficlone, in.Fd()); errno != 0 {
		if err := out.Truncate(st.Size()); err != nil {
			return err
		}
		for _, s := range segments(in, st.Size()) {
			if err := copyExtent(in, out, s); err != nil {
				return err
			}
		}
	}
	return os.Rename(dst+".tmp", dst)
}

func copyExtent(in, out *os.File, s extent) error {
	if _, err := in.Seek(s.start, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(s.start, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(out, in, s.end-s.start)
	return err
}

// freeze keeps the content of a flat file that nobody writes any more.
func freeze(src, dst string) error {
	if err := os.MkdirAll(path.Dir(dst), 0755); err != nil {
		return err
	}
	err := os.Link(src, dst)
	if errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EPERM) {
		return clone(src, dst)
	}
	return err
}

// descriptor is what a disk's descriptor file says.
type descriptor struct {
	size   int64 // of its extents, in bytes
	uuid   string
	parent string // the parent's descriptor, "" for a base disk
}

func (d *descriptor) write(fileName string) error {
	parentCID, hint := "ffffffff", ""
	if d.parent != "" {
		parentCID = "fffffffe"
		hint = fmt.Sprintf("parentFileNameHint=%q\n", path.Base(dsFile(d.parent)))
	}
	text := "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\n" +
		"parentCID=" + parentCID + "\nisNativeSnapshot=\"no\"\ncreateType=\"vmfs\"\n" + hint +
		fmt.Sprintf("\n# Extent description\nRW %d VMFS %q\n", d.size/512, path.Base(flat(fileName))) +
		"\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n" +
		fmt.Sprintf("ddb.geometry.cylinders = \"%d\"\n", d.size/512/255/63) +
		"ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.thinProvisioned = \"1\"\n" +
		fmt.Sprintf("ddb.uuid = %q\nddb.virtualHWVersion = \"13\"\n", spacedUUID(d.uuid))
	return os.WriteFile(dsFile(fileName), []byte(text), 0644)
}

var (
	extentLine = regexp.MustCompile(`(?m)^(?:RW|RDONLY|NOACCESS) (\d+) `)
	uuidLine   = regexp.MustCompile(`(?m)^ddb\.uuid\s*=\s*"([0-9a-fA-F -]+)"`)
)

func readDescriptor(fileName string) (*descriptor, error) {
	text, err := os.ReadFile(dsFile(fileName))
	if err != nil {
		return nil, err
	}
	d := &descriptor{}
	for _, m := range extentLine.FindAllStringSubmatch(string(text), -1) {
		sectors, _ := strconv.ParseInt(m[1], 10, 64)
		d.size += sectors * 512
	}
	if m := uuidLine.FindStringSubmatch(string(text)); m != nil {
		d.uuid = dashedUUID(m[1])
	}
	return d, nil
}

// spacedUUID is a uuid as descriptors and changeIds have it: "60 00 c2 9f ... -9e 25 ...".
func spacedUUID(uuid string) string {
	hex := strings.ReplaceAll(uuid, "-", "")
	var pairs []string
	for i := 0; i+1 < len(hex); i += 2 {
		pairs = append(pairs, hex[i:i+2])
	}
	if len(pairs) != 16 {
		return ""
	}
	return strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")
}

// dashedUUID is the same as the backing's uuid has it: "6000c29f-....".
func dashedUUID(spaced string) string {
	hex := strings.NewReplacer(" ", "", "-", "").Replace(spaced)
	if len(hex) != 32 {
		return ""
	}
	return fmt.Sprintf("%s-%s-%s-%s-%s", hex[:8], hex[8:12], hex[12:16], hex[16:20], hex[20:])
}
